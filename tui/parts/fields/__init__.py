"""Fields of one line: text, text with line breaks, a path."""
