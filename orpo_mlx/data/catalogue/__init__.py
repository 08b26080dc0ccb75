"""Preference datasets of the Hub: found and described before a download."""
