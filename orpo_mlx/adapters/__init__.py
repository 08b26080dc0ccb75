"""LoRA on, off, counted and on disk, in mlx-lm's format; PEFT's is read."""
