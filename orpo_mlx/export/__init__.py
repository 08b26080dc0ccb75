"""Adapters in the formats of other programs, checked after writing.

    orpo-mlx export RUN|ADAPTER --to FORMAT [--out PATH]      command.py -> a module per format
    orpo-mlx adapter import PEFT_FOLDER --out FOLDER          adapter_import.py

How the parts fit, for someone who adds a format:

| File | What it owns |
| --- | --- |
| `formats.py` | the table of formats and of their options; `--list` and `--help` come from it |
| `command.py` | the command line: what is exported, to where, the order of events; light |
| `source.py` | `AdapterSource`: arrays (numpy, through the import gate), settings, run |
| `base.py` | `BaseModel`: config.json, folder when needed, original name, shapes of layers |
| `names.py` | THE table: architectures, paths in MLX, Hugging Face and GGUF, orders of rows |
| `written.py` | written aside, checked, renamed; existing targets, free disk, sha256 |
| `checks.py` | `Check`, and the comparison of the delta scale x B x A with that of a file |
| `progress.py` | what is said meanwhile, as lines or as JSON lines |
| `mlx.py`, `peft.py`, `gguf_lora.py`, ... | one format each |
| `peft_import.py`, `adapter_import.py` | PEFT read, for `--init-adapter` and `adapter import` |
| `card.py` | README.md of an exported folder |

A format is a module with

    def export(source: AdapterSource, target: Target, say: Progress) -> Exported: ...

and a row in `formats.FORMATS` naming the module, the options it takes, and whether it writes a
folder or a file. `export` refuses what the format cannot express (`ExportError`, naming the format
that can) before it writes anything; writes by `written.write_folder` or `written.write_file`, whose
`inspect` argument is called with the path aside, opens it again and returns the checks; and returns
what it wrote with the command that uses it. A failed check removes what was written and ends with
exit code 1. Nothing here imports train or step.
"""
