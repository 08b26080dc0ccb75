"""Widgets and screens that several tasks share."""
