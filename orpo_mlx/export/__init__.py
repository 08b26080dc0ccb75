"""Adapters in the formats of other programs, checked after writing; nothing of a training.

`source` reads the adapter through the import gate, `base` its model; a format writes into a folder
beside the target by `written`, opens it again and returns its checks. To add a format: a module in
`formats` with `export(source, target, say) -> Exported`, and a row in `formats.table`. To add an
architecture: a row in `models.architectures`, held by `tests/interop`.
"""
