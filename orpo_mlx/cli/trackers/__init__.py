"""Runs in the tables of other programs, on the command line."""
