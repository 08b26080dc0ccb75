"""Runs in one chart, and the settings in which they differ."""
