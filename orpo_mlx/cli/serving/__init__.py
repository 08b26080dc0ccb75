"""Models that answer other programs, on the command line."""
