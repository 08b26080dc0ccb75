"""Curves, from numbers to cells.

`painting` and `scaling` are pure; `line_chart` only paints what they computed. To add a chart: a
row in `kinds`, or none if the metric's row says it is charted.
"""
