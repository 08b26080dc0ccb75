"""Commands about several runs or the notes on one: compare, rm, note, queue."""
