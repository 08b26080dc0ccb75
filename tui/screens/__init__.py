"""One file per screen: it wires widgets to state and asks others to do things."""
