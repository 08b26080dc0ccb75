"""Pairs to token ids, by the model's own chat template, and where they are kept."""
