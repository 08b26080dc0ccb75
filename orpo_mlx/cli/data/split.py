"""`orpo-mlx data split`: train, valid and test files that share no prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orpo_mlx.cli.data.source import (
    account_text,
    add_layout_options,
    command_parser,
    layout_choice,
    out_path,
    read_pairs,
    require,
    rows_word,
)
from orpo_mlx.cli.parser import Parser, number_option
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.data.split import SHARE, draw_sides, group_prompts, is_near, prompt_text
from orpo_mlx.data.types import Pair
from orpo_mlx.data.writing import check_out, normal_row, write_rows
from orpo_mlx.errors import ConfigError, DataError, reason_of


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx data split`; return the exit code 0.

    Raises:
        OrpoError: the source or the folder cannot be used; nothing was written.
        TextRequested: --help.
    """
    given = build_parser().parse(argv)
    source = require(given, "source", "SRC", "split")
    folder = out_path(require(given, "out", "--out DIR", "split"))
    fractions = _fractions(given)
    seed = number_option(given, "seed", 0, 0, 2**31 - 1, whole=True)
    share = number_option(given, "similarity", SHARE, 0.5, 1)
    choice = layout_choice(given)
    for name in ("train", "valid", "test"):
        if name in ("train", *fractions):
            _check_place(folder, name, "force" in given)
    found = read_pairs(given, choice)
    groups = group_prompts([prompt_text(pair) for pair in found.pairs], share)
    sides = draw_sides(groups, fractions, seed)
    _require_enough(sides, fractions, source, len(set(groups)))
    about = {"split_seed": seed, "similarity": share}
    print_text(account_text(found.account, found.layouts, found.notes))
    return print_text(_write(folder, found.pairs, groups, sides, fractions, about))


def _fractions(given: dict[str, Any]) -> dict[str, float]:
    """Return the shares of the held-out sides, those above 0."""
    shares = {
        name: number_option(given, name, default, 0, 0.9)
        for name, default in (("test", 0.0), ("valid", 0.05))
    }
    shares = {name: share for name, share in shares.items() if share > 0}
    if not shares or sum(shares.values()) >= 1:
        raise ConfigError(
            "--valid and --test: nothing would be divided"
            if not shares
            else "--valid and --test: nothing would be left to train on",
            "Give shares such as --valid 0.05 --test 0.05.",
        )
    return shares


def _check_place(folder: Path, name: str, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: exists and is not a folder.", "Give another --out.")
    if folder.exists():
        check_out(folder / f"{name}.jsonl", force)


def _require_enough(
    sides: Sequence[str], fractions: dict[str, float], source: str, groups: int
) -> None:
    empty = [name for name in fractions if name not in sides]
    if empty:
        raise DataError(
            f"{source}: {groups} different prompts cannot be divided into train, "
            f"{' and '.join(fractions)}; none is left for {' and '.join(empty)}.",
            "Add pairs with other prompts, or give --similarity 1 to keep together only prompts "
            "with the same words.",
        )


def _write(
    folder: Path,
    pairs: Sequence[Pair],
    groups: list[int],
    sides: list[str],
    fractions: dict[str, float],
    about: dict[str, Any],
) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({reason_of(error)}).", "Check it.") from None
    lines, far = [], []
    for side in ("train", "valid", "test"):
        members = [i for i, name in enumerate(sides) if name == side]
        if not members:
            continue
        path = folder / f"{side}.jsonl"
        write_rows(path, (normal_row(pairs[i], about) for i in members))
        share = len(members) / len(pairs)
        prompts = len({groups[i] for i in members})
        lines.append(f"wrote   {path}: {rows_word(len(members))} ({share:.1%}), {prompts} prompts")
        asked = max(1, round(fractions.get(side, share) * len(pairs)))
        far += [side] if not is_near(len(members), asked) else []
    shared = sum(size - 1 for size in Counter(groups).values())
    lines.append(
        f"        {shared:,} pairs stay with another one of the same or nearly the same prompt; "
        "no prompt is on two sides"
    )
    if far:
        lines.append(
            f"        {' and '.join(far)}: another share than was asked for, since many prompts "
            "are nearly alike; --similarity 1 keeps together only those with the same words"
        )
    return "\n".join(lines) + "\n"


def build_parser() -> Parser:
    """Return the parser of `orpo-mlx data split`."""
    parser = command_parser(
        "split",
        "Divide preference data into files for training, validation and test. Pairs with the same\n"
        "prompt, or nearly the same, stay on one side: what is held out was never trained on.",
        "SRC --out DIR [options]",
    )
    parser.add_argument("--out", metavar="DIR", help="Folder for train.jsonl, valid.jsonl, ...")
    parser.add_argument("--valid", metavar="X", help="Share for validation. [default 0.05]")
    parser.add_argument("--test", metavar="X", help="Share for the test. [default 0: none]")
    parser.add_argument("--seed", metavar="N", help="Of the draw. [default 0]")
    parser.add_argument(
        "--similarity",
        metavar="X",
        help="Prompts that share this much of their sequences of three words are one; 1: only "
        f"those with the same words. [default {SHARE}]",
    )
    add_layout_options(parser)
    parser.add_argument("--force", action="store_true", help="Replace files that exist.")
    return parser
