"""Charts as files: the numbers as CSV, the picture as SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.smoothing import smooth
from orpo_mlx.text.svg_chart import HEIGHT, Series, chart_svg, svg_page
from tui.charts.kinds import ChartKind, chart_lines
from tui.charts.picture import Line
from tui.run.columns import Table
from tui.run.state import RunState


def save_charts(
    folder: Path, kinds: Sequence[ChartKind], state: RunState, smoothing: float = 0.9
) -> list[Path]:
    """Write all numbers and the given charts; return the files.

    Raises:
        OSError: one could not be written.
    """
    texts = {
        "steps.csv": csv_text(state.steps),
        "validation.csv": csv_text(state.evals),
        "charts.svg": charts_svg(kinds, state, smoothing),
    }
    return write_texts(folder, texts)


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts, by the names of their files, into a folder that is made; return the files.

    Raises:
        OSError: one could not be written.
    """
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def csv_text(table: Table) -> str:
    """Return a table as CSV, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.names)
    columns = [table.column(name).tolist() for name in table.names]
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def charts_svg(kinds: Sequence[ChartKind], state: RunState, smoothing: float) -> str:
    """Return charts below each other as one SVG."""
    charts = [
        chart_svg(
            kind.title,
            "step",
            [_series(line, smoothing) for line in chart_lines(kind, state)],
            top=index * HEIGHT,
        )
        for index, kind in enumerate(kinds)
    ]
    return svg_page(charts)


def _series(line: Line, smoothing: float) -> Series:
    if line.points or not line.may_smooth or not smoothing:
        return Series(line.name, line.xs.tolist(), line.ys.tolist(), points=line.points)
    smoothed = smooth(line.ys, smoothing)
    return Series(line.name, line.xs.tolist(), smoothed.tolist(), faint=line.ys.tolist())
