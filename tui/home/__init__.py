"""The first screen: all runs, or a welcome."""
