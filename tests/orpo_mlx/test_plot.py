"""`orpo-mlx plot`: what is drawn, by value, and what is refused."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.plot import main, metric_series, read_course, smoothed
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EventWriter, Resumed
from orpo_mlx.simulation import Script, simulate


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return simulate(Script(steps=12, speed=0.0), run_dir=str(tmp_path / "runs" / "first"))[0]


def test_the_average_is_debiased():
    # weight 1/2: (1), (1/2*1 + 2)/(3/2), ...
    assert smoothed([1.0, 2.0, 4.0], 0.5) == pytest.approx([1.0, 5 / 3, 3.0])
    assert smoothed([7.0] * 5, 0.9) == pytest.approx([7.0] * 5)


def test_steps_are_lines_evaluations_dots_and_a_learning_rate_is_never_smoothed(run):
    course = read_course(run)
    train, valid = metric_series([course], "loss", 0.9)
    assert list(train.faint) == [event.loss for event in course.steps]
    assert list(train.ys) != list(train.faint)
    assert valid.points
    assert list(valid.xs) == [event.step for event in course.evals]
    (rate,) = metric_series([course], "learning_rate", 0.9)
    assert list(rate.ys) == [event.learning_rate for event in course.steps]


def test_what_a_resumed_process_computes_again_counts_once(run):
    writer = EventWriter(run.events_file)
    writer.write(Resumed(8, new_process=True))
    writer.close()
    course = read_course(run)
    assert [event.step for event in course.steps] == list(range(1, 9))
    assert max(event.step for event in course.evals) <= 8


@pytest.mark.parametrize("ending", [".svg", ".html"])
def test_files_hold_a_chart_per_metric(run, tmp_path, ending):
    out = tmp_path / f"run{ending}"
    main([str(run.path), "--out", str(out), "--metrics", "loss,grad_norm"])
    text = out.read_text()
    assert "<script" not in text
    start, end = text.index("<svg"), text.index("</svg>") + len("</svg>")
    root = ElementTree.fromstring(text[start:end])
    assert len(root.findall("{*}g")) == 2


def test_several_runs_stand_in_one_chart_with_their_names(run, tmp_path):
    other = simulate(Script(steps=8, seed=3, speed=0.0), run_dir=str(tmp_path / "runs" / "second"))
    courses = [read_course(run), read_course(other[0])]
    names = [one.name for one in metric_series(courses, "loss", 0.0)]
    assert names == ["first train", "first valid", "second train", "second valid"]
    assert {one.colour for one in metric_series(courses, "loss", 0.0)} == {0, 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which run"),
        (["first"], "--out is missing"),
        (["first", "--out", "x.pdf"], r"ends in \.pdf"),
        (["first", "--out", "x.svg", "--metrics", "los"], "did you mean loss"),
        (["first", "--out", "x.svg", "--smooth", "1"], "--smooth: 1"),
        (["first", "--out", "/nowhere/x.svg"], "cannot be written"),
    ],
)
def test_wrong_input_is_named(run, words, said):
    with pytest.raises(ConfigError, match=said):
        main([*words, "--runs-dir", str(run.path.parent)])


def test_a_run_without_steps_is_refused(tmp_path):
    with pytest.raises(RunError, match="nothing to draw"):
        read_course(RunDirectory(tmp_path))
