"""Talking with base and adapter; what is liked becomes data."""
