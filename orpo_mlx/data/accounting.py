"""Where every row of a source went, as lines of text and as JSON: one form for all commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orpo_mlx.data.tokens.tokenize import NO_ROOM, PAIR_TOO_LONG, PROMPT_CUT, RESPONSE_TOO_LONG
from orpo_mlx.data.types import Account
from orpo_mlx.text.formatting import visible

EXAMPLES = 3
"""Rows that are named for each reason."""
_LIMIT = "max_seq_length"
_BY_LENGTH = (NO_ROOM, PAIR_TOO_LONG, PROMPT_CUT, RESPONSE_TOO_LONG)


def account_lines(account: Account, about: str = "", limit: int | None = None) -> list[str]:
    """Return what was read, kept and dropped, and why.

    Args:
        account: of the rows.
        about: what else is said of them, in the first line.
        limit: of tokens, said where rows met it.
    """
    dropped = sum(account.dropped.values())
    lines = [f"rows    {account.read:,} read, {account.kept:,} kept, {dropped:,} dropped{about}"]
    for verb, counts in (("dropped", account.dropped), ("kept, but", account.noted)):
        for reason, count in counts.items():
            where = ", ".join(account.offenders.get(reason, ())[:EXAMPLES])
            rows = f" ({visible(where)})" if where else ""
            lines.append(f"        {verb} {count:,}: {visible(_with_limit(reason, limit))}{rows}")
    return lines


def _with_limit(reason: str, limit: int | None) -> str:
    if limit is None or reason not in _BY_LENGTH:
        return reason
    at = "" if _LIMIT in reason else f" at {_LIMIT}"
    return f"{reason}{at} {limit:,}"


def account_json(account: Account) -> dict[str, Any]:
    """Return an account as plain values, of each reason the first rows."""
    return {
        "read": account.read,
        "kept": account.kept,
        "dropped": account.dropped,
        "noted": account.noted,
        "offenders": {why: rows[:EXAMPLES] for why, rows in account.offenders.items()},
    }


def account_of(content: Mapping[str, Any]) -> Account:
    """Return the account that `account_json` wrote."""
    names = ("read", "kept", "dropped", "noted", "offenders")
    return replace(Account(), **{name: content[name] for name in names})
