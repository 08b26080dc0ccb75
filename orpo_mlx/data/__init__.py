"""From files to token batches: sources, layouts, pairs, tokens, batches.

Nothing here loads mlx, mlx_lm or transformers; the tokenizer is always an argument.
"""
