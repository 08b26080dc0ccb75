"""Answers: one by one, side by side, in batches; sampling is mlx-lm's."""
