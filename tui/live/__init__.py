"""A run as it trains, and as it ended."""
