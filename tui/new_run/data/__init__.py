"""The second step: which pairs."""
