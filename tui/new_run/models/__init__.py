"""The first step: which model."""
