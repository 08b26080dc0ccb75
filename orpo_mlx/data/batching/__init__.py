"""Which pairs each step sees, and how they are laid out; NumPy alone."""
