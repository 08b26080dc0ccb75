"""From files to token batches: sources, layouts, pairs, tokens, batches, and what is said of them.

Downhill: sources -> layouts -> tokens -> pipeline -> split -> prepare -> batching; `checkup` looks
at what passes by. Nothing here loads mlx, mlx_lm or transformers; the tokenizer is an argument.
"""
