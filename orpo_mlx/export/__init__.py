"""Adapters in the formats of other programs. For now one way: PEFT's adapters come in."""
