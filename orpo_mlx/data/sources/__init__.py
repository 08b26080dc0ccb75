"""What a user names, as rows: files, folders, Hub datasets, mixtures.

To add a kind of file: a reader that yields rows, named in `files`.
"""
