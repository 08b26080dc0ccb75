"""What every screen rests on: the host, commands, keys, themes, the terminal, settings.

A command of a screen is declared in `commands`; keys, palette and docs/app.md follow.
"""
