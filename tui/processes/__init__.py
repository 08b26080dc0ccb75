"""Trainers and other child processes, started, asked and ended.

What needs a model is a child on a leash, ended with the app; a trainer is detached and outlives it.
"""
