"""Model and pairs to log-probs, in ways that give the same numbers and cost differently.

Each way is a class in a module of its own; `select` tries them on the model at hand. To add one:
the module, and a row in `select`.
"""
