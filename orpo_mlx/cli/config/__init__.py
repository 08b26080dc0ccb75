"""Settings files, on the command line."""
