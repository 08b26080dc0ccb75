"""Answers compared blind: two at a time, one key a verdict."""
