"""Completion of words in a shell, made from the table of commands."""
