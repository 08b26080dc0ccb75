"""A GGUF written from the model's own weights, without a GGUF of the base model.

`header` says sizes, `rope` positions, `vocabulary` and `pieces` the tokenizer, `tensors` names and
number formats; `whole` writes them and checks what was written. What a header must say is decided
by llama.cpp's `conversion` folder; `tests/interop` holds every row to that.
"""
