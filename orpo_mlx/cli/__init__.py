"""Words in, exit code and text out; the only code that prints.

`main` is the table of commands, `parser` and `settings_options` read words, `terminal` writes.
To add a command: a module in `commands` with `main(words) -> int`, and a row in `main.COMMANDS`.
"""
