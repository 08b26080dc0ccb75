"""Lines of a table in text: what does not fit goes on below the words, not below the name."""

from __future__ import annotations

import textwrap


def hung(text: str, width: int, column: int) -> str:
    """Break each line to a width.

    Args:
        text: of lines, those of a table with their words from `column` on, blanks before.
        width: in cells.
        column: where words of the table stand.

    >>> print(hung("Name  some words", 12, 6))
    Name  some
          words
    """
    return "\n".join(_hung_line(line, width, column) for line in text.split("\n"))


def _hung_line(line: str, width: int, column: int) -> str:
    # Prose may have a blank there, too, but begins at the border and has no two.
    name = line[:column]
    is_row = name.endswith("  ") or (name.startswith(" ") and name.endswith(" "))
    indent = (
        column if is_row and line[column : column + 1].strip() else len(line) - len(line.lstrip())
    )
    parts = textwrap.wrap(
        line, max(width, indent + 8), subsequent_indent=" " * indent, break_on_hyphens=False
    )
    return "\n".join(parts)
