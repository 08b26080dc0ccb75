"""`orpo-mlx judge`: its words, the keys of a person, the process that serves the app's screen."""
