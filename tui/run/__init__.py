"""One run as a viewer knows it: events reduced to columns, marks and a status; no widgets."""
