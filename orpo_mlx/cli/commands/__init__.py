"""A module for each word after `orpo-mlx`; heavy imports stay inside functions."""
