"""The commands of `orpo-mlx data`."""
