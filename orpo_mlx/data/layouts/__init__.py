"""Rows to pairs: which layout, and what becomes of its columns.

To add a layout: a row in `table.LAYOUTS` and a function in `convert`; a sample in your own words
goes to `tests/data/layouts`.
"""
