"""Who computes a planned run: the dialog that asks for processes here, or for several Macs."""
