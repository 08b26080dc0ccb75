"""Screens without a folder of their own: doctor, settings, help.

To add a screen: a folder beside this one, a message in `shell.messages`, its handler in `app`, an
area in `shell.commands`.
"""
