"""The table of formats, and a module for each."""
