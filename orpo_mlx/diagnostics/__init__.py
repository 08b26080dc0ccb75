"""This machine, and whether a training on it is what it should be."""
