"""A run: `train` tells it from top to bottom, `prepare` comes before it, `step` is one step of it.

`run` holds what the loop needs at hand, `checkpoint` and `identity` what a resume needs.
"""
