"""SVG charts: well-formed, complete, and what is no number is left out."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from orpo_mlx.text.svg_chart import HEIGHT, Series, chart_svg, svg_page


def parsed(*charts: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg_page(charts))


def points(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    lines = [line.attrib["points"].split() for line in root.findall(".//{*}polyline")]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in line)] for line in lines]


def test_a_line_goes_through_its_points_from_left_to_right_and_up_for_more():
    (line,) = points(parsed(chart_svg("loss", "step", [Series("a", [0, 1, 2], [1.0, 3.0, 2.0])])))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 < y2 < y0
    assert 2 * (y0 - y2) == pytest.approx(y0 - y1, abs=0.3)


def test_what_is_no_number_breaks_the_line():
    ys = [1.0, 2.0, math.nan, 3.0, math.inf, 2.0]
    lines = points(parsed(chart_svg("loss", "step", [Series("a", list(range(6)), ys)])))
    assert [len(line) for line in lines] == [2, 1, 1]
    assert "nan" not in svg_page([chart_svg("loss", "step", [Series("a", list(range(6)), ys)])])


def test_evaluations_are_dots_and_raw_values_stand_faintly_behind():
    series = [
        Series("train", [0, 1], [1.0, 2.0], faint=[0.5, 2.5]),
        Series("valid", [0, 1, 2], [1.0, math.nan, 2.0], points=True),
    ]
    root = parsed(chart_svg("loss", "step", series))
    first, second = root.findall(".//{*}polyline")
    assert first.get("stroke-opacity") == "0.25"
    assert second.get("stroke-opacity") is None
    dots = [dot for dot in root.findall(".//{*}circle") if float(dot.attrib["cy"]) > 58]
    assert len(dots) == 2


def test_texts_are_escaped_and_long_names_lose_their_middle():
    name = "A <begin>" + "x" * 40 + "<end>"
    text = svg_page([chart_svg("a & b", "step", [Series(name, [0, 1], [0, 1])])])
    words = [node.text for node in ElementTree.fromstring(text).findall(".//{*}text")]
    assert "a & b" in words
    assert any(
        word and word.startswith("A <begin>") and "..." in word and word.endswith("<end>")
        for word in words
    )


def test_charts_stand_below_each_other():
    root = parsed(*(chart_svg("t", "step", [], top=HEIGHT * index) for index in range(3)))
    assert root.get("height") == str(3 * HEIGHT)
    tops = [group.get("transform") for group in root.findall("{*}g")]
    assert tops == ["translate(0,0)", f"translate(0,{HEIGHT})", f"translate(0,{2 * HEIGHT})"]
    assert [node.text for node in root.findall(".//{*}text")].count("no data") == 3


def test_lines_differ_by_dashes_as_well_as_by_colour():
    series = [Series(str(n), [0, 1], [n, n + 1]) for n in range(4)]
    root = parsed(chart_svg("t", "step", series))
    found = root.findall(".//{*}polyline")
    assert len({(line.get("stroke"), line.get("stroke-dasharray")) for line in found}) == 4
    assert len({line.get("stroke-dasharray") for line in found}) == 4
