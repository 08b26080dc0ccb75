"""The terminal app: a view of run directories and of child processes, never a trainer itself.

Imports only the light part of orpo_mlx; what needs a model runs in a process of its own.
"""
