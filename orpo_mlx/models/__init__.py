"""Models: found, checked, downloaded, loaded, reached into.

All that reaches into mlx-lm's models is in `patches`; all that knows an architecture by name is in
`architectures`, where a new one is a row.
"""
