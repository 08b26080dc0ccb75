"""Runs in relation to others: one that begins with the settings of another."""
