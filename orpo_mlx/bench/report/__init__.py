"""The result of a bench as Markdown: what matters, what was found, under which conditions."""
