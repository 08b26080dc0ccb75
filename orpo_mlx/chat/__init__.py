"""A conversation with base and adapter, and what a person says of the answers; no model here.

`session` is what a front end has: it takes what was typed, gives requests for the process that
answers (`orpo_mlx.serving.playground`), and takes that process's messages in. The terminal and the
app are two of them. `feedback` makes the next training data of what was liked.
"""
