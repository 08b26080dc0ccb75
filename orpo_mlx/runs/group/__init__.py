"""Runs in relation to others: one like another, several compared, some removed."""
