"""Single operations of MLX on this device: are they right, how long, how much memory."""
