"""The version of the package; read by every file that records what made it."""

__version__ = "0.1.0"
