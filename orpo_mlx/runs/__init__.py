"""A run directory: its layout and lock, the events in it, and the requests put into it.

Light on purpose: the terminal app and `orpo-mlx runs` read runs without loading mlx.
"""
