"""Runs in relation to others: one like another, several compared, removed, or waiting."""
