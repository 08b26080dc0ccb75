"""Base and adapter answering side by side."""
