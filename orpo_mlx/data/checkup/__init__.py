"""What is said of a dataset before it is trained on.

To add a finding: count it in `counts`, judge it in `rules`.
"""
