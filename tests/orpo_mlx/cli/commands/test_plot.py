"""`orpo-mlx plot`: what is drawn, by value, and what is refused."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from orpo_mlx.cli.commands.plot import Course, _metrics, main, pane_series, panes, read_course
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import DriftMeasured, EventWriter, Resumed
from orpo_mlx.text.svg_chart import Series


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return simulate(Script(steps=12, speed=0.0), run_dir=str(tmp_path / "runs" / "first"))[0]


def drawn(courses: list[Course], metric: str, weight: float) -> list[Series]:
    (pane,) = panes(courses, [metric])
    return pane_series(pane, weight)


def test_steps_are_lines_evaluations_dots_and_a_learning_rate_is_never_smoothed(run):
    course = read_course(run)
    train, valid = drawn([course], "loss", 0.9)
    assert list(train.faint) == [event.value("loss") for event in course.steps]
    assert list(train.ys) != list(train.faint)
    assert valid.points
    assert list(valid.xs) == [event.step for event in course.evals]
    (rate,) = drawn([course], "learning_rate", 0.9)
    assert list(rate.ys) == [event.learning_rate for event in course.steps]


def test_what_a_resumed_process_computes_again_counts_once(run):
    writer = EventWriter(run.events_file)
    writer.write(Resumed(8, new_process=True))
    writer.close()
    course = read_course(run)
    assert [event.step for event in course.steps] == list(range(1, 9))
    assert max(event.step for event in course.evals) <= 8


def test_drift_is_drawn_where_it_was_measured(run):
    assert "drift" not in _metrics(None, [read_course(run)])
    writer = EventWriter(run.events_file)
    writer.write(DriftMeasured(8, 0.25, 0.2, 0.3, prompts=12, seconds=1.0))
    writer.close()
    course = read_course(run)
    assert _metrics(None, [course])[-1] == "drift"
    (line,) = drawn([course], "drift", 0.9)
    assert (line.points, list(line.xs), list(line.ys)) == (True, [8], [0.25])


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
    names = [one.name for one in drawn(courses, "loss", 0.0)]
    assert names == ["first train", "first valid", "second train", "second valid"]
    assert {one.colour for one in drawn(courses, "loss", 0.0)} == {0, 1}


def test_chosen_and_rejected_share_a_pane_with_validation_over_training(run):
    course = read_course(run)
    loss, both = panes([course], ["rejected_logps", "loss", "chosen_logps"])
    assert loss.metrics == ("loss",)
    assert [line.name for line in pane_series(both, 0.5)] == [
        "chosen train", "chosen valid", "rejected train", "rejected valid",
    ]  # fmt: skip
    assert both.title(0.5).endswith("smoothed 0.5, raw values behind")
    assert "smoothed" not in both.title(0.0)


def test_losses_of_different_objectives_are_kept_apart(run):
    one = read_course(run)
    other = dataclasses.replace(one, id="other", objective="another")
    found = panes([one, other], ["loss", "logps_margin"])
    assert [(pane.metrics, len(pane.courses)) for pane in found] == [
        (("loss",), 1), (("loss",), 1), (("logps_margin",), 2),
    ]  # fmt: skip
    assert "of another" in found[1].title(0.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which run"),
        (["first"], "--out is missing"),
        (["first", "--out", "x.pdf"], r"ends in \.pdf"),
        (["first", "--out", "x.png"], r"ends in \.png, needs \.svg or \.html"),
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
