"""One file per widget: its own style, its own messages, no knowledge of its siblings."""
