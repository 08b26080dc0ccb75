"""The memory and disk a run needs, told before its weights are read, and settings that fit."""
