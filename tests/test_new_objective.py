"""A throw-away objective with a metric of its own: one class and two rows, and all follows."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar
from xml.etree import ElementTree

import mlx.core as mx
import pytest

from orpo_mlx.cli.commands import plot, train
from orpo_mlx.cli.commands.runs import print_runs
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.errors import CheckpointError, ConfigError
from orpo_mlx.objectives import OBJECTIVES, build_objective
from orpo_mlx.objectives.numerics import masked_sum
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EvalCompleted, RunStarted, StepCompleted, read_events
from orpo_mlx.runs.listing import list_runs
from orpo_mlx.runs.metrics import METRICS, Metric
from orpo_mlx.text.ticks import format_value
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.train import resume
from tui.charts.kinds import chart_kinds, chart_lines, chosen_charts
from tui.charts.picture import View
from tui.compare.comparing import ComparedRun, compare_csv, curves, result_rows, value_row
from tui.live.texts import brief_text, number_rows
from tui.run.notes import reading_notes
from tui.run.state import RunState


@dataclasses.dataclass(frozen=True)
class Apart:
    """Chosen and rejected are to be apart, whatever becomes of either."""

    lam: float = 1.0
    name: ClassVar[str] = "apart"
    needs_reference: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = (
        "loss", "chosen_logps", "rejected_logps", "chosen_chance",
    )  # fmt: skip

    def __call__(self, scores, reference, totals):
        is_real = scores.nll_tokens > 0
        chosen, rejected = scores.chosen_logps, scores.rejected_logps
        per_pair = mx.stack([self.lam * (rejected - chosen), chosen, rejected, mx.exp(chosen)])
        shares = masked_sum(per_pair, is_real) / totals.pairs
        return shares[0], shares


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objective and its metric are known while a test lasts."""
    monkeypatch.setitem(OBJECTIVES, "apart", Apart)
    own = Metric("chosen_chance", "Chosen chance", better="higher", what="per token")
    monkeypatch.setitem(METRICS, own.name, own)


@pytest.fixture
def run(apart, model_folder, pairs_file, tmp_path, capsys) -> RunDirectory:
    """A run of four steps by command; its one validation pair is evaluated before and after."""
    words = [
        "--model", model_folder, "--data", pairs_file(8), "--run-dir", tmp_path / "runs" / "apart",
        "--objective", "apart", "--best-metric", "chosen_chance", "--lam", "0.5", "--steps", "4",
        "--micro-batch-size", "2", "--rank", "2", "--num-layers", "-1", "--learning-rate", "5e-3",
        "--valid-fraction", "0.25", "--eval-pairs", "1", "--report-every", "1",
        "--sample-prompts", "0", "--save-every", "2", "--eval-every", "0",
    ]  # fmt: skip
    assert train.main([str(word) for word in words]) == 0
    (tmp_path / "report.txt").write_text(capsys.readouterr().out)
    return RunDirectory(tmp_path / "runs" / "apart")


def events_of(run: RunDirectory) -> list:
    return [record.event for record in read_events(run.events_file)]


def state_of(run: RunDirectory) -> RunState:
    return RunState().apply_all(read_events(run.events_file))


def test_it_trains_and_the_events_and_the_closing_table_have_its_metric(run, tmp_path):
    said = events_of(run)
    (started,) = [event for event in said if isinstance(event, RunStarted)]
    assert (started.objective, started.metrics) == ("apart", list(Apart.metrics))
    steps = [event for event in said if isinstance(event, StepCompleted)]
    before, after = (event for event in said if isinstance(event, EvalCompleted))
    assert [list(event.metrics) for event in (*steps, before, after)] == [[*Apart.metrics]] * 6
    for event in (before, after):
        margin = event.value("chosen_logps") - event.value("rejected_logps")
        assert event.value("loss") == pytest.approx(-0.5 * margin, abs=1e-6)
        assert event.value("chosen_chance") == pytest.approx(math.exp(event.value("chosen_logps")))
    assert after.value("loss") < before.value("loss")
    assert after.is_best == (after.value("chosen_chance") > before.value("chosen_chance"))

    report = (tmp_path / "report.txt").read_text()
    values = f"{before.value('chosen_chance'):>12.4f}{after.value('chosen_chance'):>12.4f}"
    assert f"\n  {'chosen chance':<28}{values}\n" in report
    last = steps[-1]
    assert (
        f"loss {last.value('loss'):.4f}  chosen chance {last.value('chosen_chance'):.4f}" in report
    )
    assert "acc" not in report.split("\nstep 1/4")[1].split("\n")[0]


def test_plot_draws_it(run, tmp_path):
    assert plot.main([str(run.path), "--out", str(tmp_path / "a.svg"), "--smooth", "0"]) == 0
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    titles = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    drawn = ("loss", "chosen_logps and rejected_logps", "chosen_chance")
    assert [title for title in titles if title in (*METRICS, *drawn)] == list(drawn)
    with pytest.raises(ConfigError, match=r"no metric 'log_odds_ratio'"):
        plot.main([str(run.path), "--out", str(tmp_path / "a.svg"), "--metrics", "log_odds_ratio"])


def test_the_list_of_runs_copes(run, capsys):
    (found,) = list_runs(run.path.parent)
    assert found.metrics["chosen_chance"] > 0
    capsys.readouterr()
    print_runs([found], run.path.parent, as_json=True)
    assert '"chosen_chance": 0.' in capsys.readouterr().out


def test_the_app_offers_its_chart_and_shows_its_number(run):
    state, said = state_of(run), events_of(run)
    measured = [e.value("chosen_chance") for e in said if isinstance(e, StepCompleted)]
    valid = [e.value("chosen_chance") for e in said if isinstance(e, EvalCompleted)]
    kinds = {kind.id: kind for kind in chart_kinds(state.metrics)}
    assert list(kinds) == [
        "loss",
        "logps",
        "chosen_chance",
        "drift",
        "rate",
        "grad",
        "speed",
        "memory",
    ]
    lines = {line.name: line.ys.tolist() for line in chart_lines(kinds["chosen_chance"], state)}
    assert lines == {"train": measured, "validation": valid}
    usual = chosen_charts("loss,log_odds,logps,accuracy", state.metrics)
    assert [kind.id for kind in usual] == ["loss", "logps", "chosen_chance"]
    assert ("chosen chance", f"{measured[-1]:.3f}") in number_rows(state)
    assert f"chosen chance {measured[-1]:.3f}" in brief_text(state, 0)
    assert reading_notes(state) == []


def test_compare_lists_it_beside_a_run_that_has_it_not(run, tmp_path):
    orpo, _ = simulate(Script(steps=4, speed=0.0), run_dir=str(tmp_path / "runs" / "orpo"))
    pair = [
        ComparedRun(one.path, letter, state_of(one)) for one, letter in ((run, "A"), (orpo, "B"))
    ]
    curve = curves([*Apart.metrics, *Orpo().metrics])["valid_chosen_chance"]
    assert (curve.title, curve.better) == ("Validation chosen chance", "higher")
    last = [e.value("chosen_chance") for e in events_of(run) if isinstance(e, EvalCompleted)][-1]
    texts = value_row(pair, curve, "step", View()).texts
    assert texts == (format_value(last), "-")
    assert len(compare_csv(pair, curve).splitlines()) == 3
    names = [row.name for row in result_rows(pair)]
    assert "  log-odds, acc, chosen chance" in names


def test_a_resumed_run_stays_with_its_objective(run):
    (run.checkpoints_folder / "0000004").rename(run.path / "gone")
    text = run.events_file.read_text()
    run.events_file.write_text(text[: text.index('{"event": "RunFinished"')])
    run.state_file.unlink()
    with pytest.raises(CheckpointError, match="--objective: was 'apart', is now 'orpo'"):
        resume(run, {"objective": "orpo", "best_metric": "loss"})


# What is refused, and the tables


def test_an_unknown_objective_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"--objective: found 'dpoo', needs one of orpo, sft"):
        build_objective("dpoo", {})


@pytest.mark.parametrize("name", ["los", "rejected_logps", "chosen_chance"])
def test_only_what_the_objective_measures_and_has_a_better_way_tells_the_best(name):
    with pytest.raises(ConfigError, match=f"--best-metric: found '{name}', needs one of loss, "):
        objective(TrainConfig(best_metric=name))


def test_the_tables_agree():
    known = {setting.name: setting.known for setting in iter_settings()}
    assert known["objective"] == tuple(OBJECTIVES)
    for name, own in OBJECTIVES.items():
        built = own()
        assert (built.name, built.metrics[0]) == (name, "loss")
        assert set(built.metrics) <= set(METRICS)
    measured = {*Orpo(nll_scope="full").metrics}.union(
        *(own().metrics for own in OBJECTIVES.values())
    )
    judging = {name for name in measured if METRICS[name].better}
    assert set(known["best_metric"]) <= {*judging, "auto"}


def test_settings_fill_the_fields_of_their_names():
    config = TrainConfig(lam=0.3, nll_weight=0.5, nll_reduction="pair", preference="none")
    assert objective(config) == Orpo(0.3, "response", "pair", 0.5, "none")


def test_the_tables_are_as_they_were():
    assert "apart" not in OBJECTIVES
    assert "chosen_chance" not in METRICS
