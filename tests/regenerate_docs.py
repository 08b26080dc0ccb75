"""The parts of the pages that are made from declarations in the code.

    make docs                            # or: python tests/regenerate_docs.py

Each part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; `test_docs.py` fails when
what stands there is not what this file would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from orpo_mlx.cli.commands.export import build_parser as build_export_parser
from orpo_mlx.cli.commands.train import build_train_parser
from orpo_mlx.cli.main import COMMANDS
from orpo_mlx.cli.settings_options import default_text
from orpo_mlx.config.declaration import GROUPS, Setting
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.export.formats.table import FORMATS
from tui.shell.commands import AREAS, key_text

DOCS = Path(__file__).parents[1] / "docs"


def settings_table() -> str:
    """Return one table per group of settings, and which of them a resumed run may change."""
    tables = []
    for group, title in GROUPS.items():
        members = [setting for setting in iter_settings() if setting.group == group]
        rows = [_setting_row(setting) for setting in members]
        head = ("Setting", "Default", "Accepts", "What it is", "Effect")
        tables.append(f"## {title}\n\n{_table(head, rows)}")
    free = ", ".join(f"`{setting.flag}`" for setting in iter_settings() if setting.may_change)
    tables.append(f"## For a resumed run\n\nA resumed run may be given other values of: {free}.")
    return "\n\n".join(tables)


def _setting_row(setting: Setting) -> tuple[str, ...]:
    default = default_text(setting).removeprefix("default ")
    usual = f"usual: {setting.usual}" if setting.usual else ""
    effect = "; ".join(text for text in (setting.effect, usual) if text)
    return (f"`{setting.flag}`", default, setting.allowed, setting.help, effect)


def options_table() -> str:
    """Return the options of the training command that are no settings."""
    known = {setting.flag for setting in iter_settings()}
    rows = [
        (f"`{f'{option} {action.metavar or str()}'.strip()}`", action.help or "")
        for action in build_train_parser()._actions
        for option in action.option_strings[-1:]
        if option not in known and not option.startswith("--no-")
    ]
    return _table(("Option", "What it does"), rows)


def commands_table() -> str:
    """Return the words that may follow `orpo-mlx`."""
    rows = [
        (f"`{f'orpo-mlx {name} {command.usage}'.strip()}`", command.help)
        for name, command in COMMANDS.items()
    ]
    return _table(("Command", "What it does"), rows)


def exports_table() -> str:
    """Return the formats of `orpo-mlx export`."""
    head = ("`--to`", "What is written", "Who reads it", "Size", "Loss of precision", "Verified in")
    return _table(
        head,
        [
            (f"`{f.name}`", f.what, f.who_reads_it, f.size, f.loss, f.verified or "its own checks")
            for f in FORMATS
        ],
    )


def export_options_table() -> str:
    """Return the options of `orpo-mlx export`."""
    rows = [
        (f"`{f'{option} {action.metavar or str()}'.strip()}`", action.help or "")
        for action in build_export_parser()._actions
        for option in action.option_strings[-1:]
    ]
    return _table(("Option of export", "What it does"), rows)


def keys_table() -> str:
    """Return one table per part of the app: its keys and the ids that `keys.toml` takes."""
    tables = []
    for area, commands in AREAS.items():
        rows = [(_keys(one.key), f"`{one.id}`", one.help) for one in commands]
        table = _table(("Key", "Command", "What it does"), rows)
        tables.append(f"**{AREA_TITLES.get(area, area.capitalize())}**\n\n{table}")
    return "\n\n".join(tables)


def _keys(names: str) -> str:
    return " or ".join(f"`{key_text(name).replace('^', 'ctrl+')}`" for name in names.split(","))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


AREA_TITLES = {
    "group": "Runs of a group",
    "app": "The app",
    "screen": "Every screen but the first",
    "chart": "A chart",
    "new": "New run",
    "preview": "Pairs of a dataset",
    "tokens": "Tokens of a scored answer",
}
"""What an area of keys is called, where its name says too little."""

PARTS = {
    "settings.md": {"settings": settings_table, "options": options_table},
    "training.md": {"commands": commands_table},
    "export.md": {"exports": exports_table, "export-options": export_options_table},
    "app.md": {"keys": keys_table},
}
"""What is generated, by the page of `docs` it stands in."""


def regenerate(page: str, text: str) -> str:
    """Return a page's text with every generated part written anew.

    Raises:
        ValueError: the markers of a part are missing or stand there twice.
    """
    for name, make in PARTS[page].items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{page}: {begin} ... {end} must stand in the text once")
        part = f"{begin}\n{make()}\n{end}"
        text = pattern.sub(lambda _, part=part: part, text)
    return text


if __name__ == "__main__":
    for page in PARTS:
        path = DOCS / page
        path.write_text(regenerate(page, path.read_text(encoding="utf-8")), encoding="utf-8")
