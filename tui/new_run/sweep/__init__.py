"""A setting with several values: the dialog that asks for them, and the start of the runs."""
