"""`orpo-mlx chat`: its words, a person or a pipe that talks, prompts asked of each checkpoint."""
