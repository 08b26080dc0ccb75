"""A run of several processes as others see it: where they are, how they shared the work."""
