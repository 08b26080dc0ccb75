"""The process behind the app's screen: what it says, what it keeps, and that both ways share it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from orpo_mlx.cli.judge.serve import _serve

SHORT = ["--pairs", "10", "--max-tokens", "8"]


@pytest.fixture
def serve(trained, tmp_path):
    """Return `serve(*lines) -> (code, messages)`: what came of these lines of input."""

    def run(*lines: object, words: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
        source = io.StringIO("".join(f"{json.dumps(line)}\n" for line in lines))
        sink = io.StringIO()
        asked = words or (str(trained.orpo.path), *SHORT, "--journal", str(tmp_path / "judge"))
        code = _serve(list(asked), source, sink)
        return code, [json.loads(line) for line in sink.getvalue().splitlines()]

    return run


def test_verdicts_are_kept_and_gone_on_from(serve):
    code, (ready, first) = serve()
    assert code == 0
    assert (ready["event"], ready["compared"]) == ("ready", ["base", "adapter"])
    assert (first["event"], first["number"], first["counts"]["left"]) == ("duel", 1, first["total"])
    place = first["duel"]["place"]
    code, (_, again, late, second) = serve(
        {"place": place + 90, "says": "tie"}, {"place": place, "says": "second"}
    )
    assert code == 0
    assert again == late == first
    assert second["number"] == 2
    assert second["counts"]["wins"] + second["counts"]["losses"] == 1
    _, (_, now, *others) = serve(5, {"place": second["duel"]["place"], "says": "both"}, None)
    assert now == second
    assert others == [second] * 3


def test_the_one_before_can_be_judged_anew(serve):
    _, (_, first) = serve()
    verdict = {"place": first["duel"]["place"], "says": "tie"}
    back = {"says": "back"}
    _, (_, *messages) = serve(back, verdict, back, {**verdict, "says": "skip"})
    assert [m["duel"] == first["duel"] for m in messages] == [True, True, False, True, False]
    assert [m["number"] for m in messages] == [1, 1, 2, 1, 2]
    assert messages[-1]["counts"]["skipped"] == 1
    assert messages[-1]["counts"]["ties"] == first["counts"]["ties"]


def test_all_can_be_judged(serve):
    _, (_, first) = serve()
    _, messages = serve(*({"place": i, "says": "skip"} for i in range(10)))
    last = messages[-1]
    assert (last["duel"], last["counts"]["left"]) == (None, 0)
    assert last["counts"]["skipped"] == first["total"]


def test_what_cannot_be_compared_is_a_message(serve):
    code, (failed,) = serve(words=("no-such-run",))
    assert code == 2
    assert failed["event"] == "failed"
    assert "no-such-run" in failed["message"]
    assert failed["what_to_do"]
