"""Numbers, names and charts as text; nothing here knows of models or runs."""
