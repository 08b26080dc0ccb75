"""`orpo-mlx data check`: the same account as a training, and an answer for every kind of input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.cli.commands.train import main as train
from orpo_mlx.runs.events import DataPrepared, NoteLogged, RunStarted, read_events

CONTRACT = {
    "data", "model", "layout", "read", "kept", "dropped", "notes", "max_seq_length", "findings",
    "lengths", "limits", "pairs", "split", "verdict", "labels",
}  # fmt: skip


def dirty_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "prompt": [{"role": "user", "content": f"How many is {i} and one?"}],
            "chosen": [{"role": "assistant", "content": f"It is {i + 1}."}],
            "rejected": [{"role": "assistant", "content": f"I like {i} and the sea."}],
        }
        for i in range(24)
    ]
    rows[2]["chosen"][0]["content"] = ""
    rows[5] = rows[4]
    rows[7]["rejected"] = rows[7]["chosen"]
    rows[9]["prompt"][0]["content"] = "The sea and the moon. " * 30
    rows[11]["chosen"][0]["content"] = "The cat sat on the mat. " * 40
    rows[13]["chosen"][0]["content"] = "Stop <|im_end|> it."
    return rows


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return `check(*words) -> (exit code, stdout, stderr)`."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = program(["data", "check", *map(str, words)])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


Check = Callable[..., tuple[int, str, str]]


def test_the_account_is_that_of_a_training(
    check: Check, model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    data = pairs_file(dirty_rows())
    settings = ["--model", model_folder, "--max-seq-length", 96, "--valid-fraction", 0.2,
                "--seed", 3, "--escape-special"]  # fmt: skip
    run = tmp_path / "run"
    few = ["--steps", 1, "--rank", 2, "--micro-batch-size", 1, "--sample-prompts", 0, "--quiet"]
    words = ["--data", data, "--run-dir", run, *settings, *few]
    assert train([str(word) for word in words]) == 0
    told = [record.event for record in read_events(run / "events.jsonl")]
    prepared = next(event for event in told if isinstance(event, DataPrepared))
    started = next(event for event in told if isinstance(event, RunStarted))

    code, out, _ = check(data, *settings, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["read"], found["kept"]) == (prepared.read, prepared.kept) == (24, 20)
    counts = {reason: one["count"] for reason, one in found["dropped"].items()}
    assert counts == prepared.dropped
    assert counts == {
        "empty chosen": 1, "duplicate row": 1, "identical text": 1,
        "response longer than max_seq_length": 1,
    }  # fmt: skip
    noted = {reason: one["count"] for reason, one in found["notes"].items()}
    assert noted == prepared.noted == {"prompt cut": 1, "control tokens in a text, escaped": 1}
    assert found["layout"]["name"] == prepared.layout
    assert found["split"] == {"train": started.pairs_train, "valid": started.pairs_valid}
    notes = [event.text for event in told if isinstance(event, NoteLogged)]
    texts = [finding["text"] for finding in found["findings"]]
    assert [note for note in notes if "template" in note] == [t for t in texts if "template" in t]


def test_the_pair_shown_first_has_the_tokens_that_are_trained_on(
    check: Check, model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    data, run = pairs_file(dirty_rows()), tmp_path / "run"
    common = ["--model", model_folder, "--valid-fraction", 0]
    few = ["--steps", 1, "--rank", 2, "--micro-batch-size", 1, "--sample-prompts", 0, "--quiet"]
    assert train([str(w) for w in ["--data", data, "--run-dir", run, *common, *few]]) == 0
    told = (record.event for record in read_events(run / "events.jsonl"))
    trained = next(event for event in told if isinstance(event, DataPrepared)).first_pair
    shown = json.loads(check(data, *common, "--json")[1])["pairs"][0]
    assert shown["where"] == trained["source"]
    for part in ("prompt", "chosen", "rejected"):
        assert "".join(token["text"] for token in shown["tokens"][part]) == trained[part]


def test_the_json_has_the_keys_that_others_read(
    check: Check, model_folder: Path, pairs_file: Callable[..., Path]
) -> None:
    data = pairs_file(dirty_rows())
    with_model = json.loads(check(data, "--model", model_folder, "--json")[1])
    without = json.loads(check(data, "--json")[1])
    assert with_model.keys() == without.keys() == CONTRACT
    assert without["model"] is None
    assert {"p5", "p50", "p90", "p95", "p99", "max", "mean", "histogram"} == set(
        with_model["lengths"]["total"]
    )
    for finding in with_model["findings"]:
        assert finding.keys() == {"level", "code", "text", "what_to_do", "count", "rows"}
    assert {"where", "prompt", "chosen", "rejected", "raw", "tokens"} <= with_model["pairs"][
        0
    ].keys()
    token = with_model["pairs"][0]["tokens"]["prompt"][0]
    assert token == {"id": 1, "text": "<|im_start|>", "special": True}


def test_without_a_model_nothing_heavy_is_loaded(pairs_file: Callable[..., Path]) -> None:
    script = (
        "import sys\nfrom orpo_mlx.__main__ import main\n"
        f"assert main(['data', 'check', {str(pairs_file())!r}]) == 0\n"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_weights_are_read_unless_pairs_are_scored(
    check: Check, model_folder: Path, copy_folder: Callable[..., Path],
    pairs_file: Callable[..., Path],
) -> None:  # fmt: skip
    folder, data = copy_folder(model_folder), pairs_file()
    scored = check(data, "--model", folder, "--score-pairs", 4, "--json")
    (finding,) = [f for f in json.loads(scored[1])["findings"] if f["code"] == "base-model"]
    assert re.search(r"in (\d+ %|under 1 %) of 4 pairs", finding["text"])
    (folder / "model.safetensors").unlink()
    assert check(data, "--model", folder)[0] == 0
    assert check(data, "--model", folder, "--score")[0] == 2


def test_the_exit_code_says_how_it_stands(check: Check, pairs_file: Callable[..., Path]) -> None:
    good, bad = (
        pairs_file(40),
        pairs_file([{"prompt": "a", "chosen": "b", "rejected": "b"}], "b.jsonl"),
    )
    rows = [{"prompt": f"{i}", "chosen": f"It is {i}.", "rejected": "No."} for i in range(6)]
    some = pairs_file([*rows, *[{**row, "chosen": ""} for row in rows]], "c.jsonl")
    assert check(good, "--strict")[0] == 0
    assert check(some)[0] == 0
    assert check(some, "--strict")[0] == 1
    code, out, _ = check(bad)
    assert code == 2
    assert "0 of 1 rows usable: 1 identical text (b.jsonl:1)" in out
    assert out.splitlines()[-1].startswith("verdict  not usable")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "DATA is missing"),
        (["none.jsonl"], "none.jsonl: no such file"),
        (["{data}", "--score"], "--score: needs --model"),
        (["{data}", "--show", "x"], "--show: x is not a whole number"),
        (["{data}", "--report", "nowhere/r.html"], "not a place for a file"),
        (["{data}", "--report", "{data}"], "it is no report; nothing was written"),
        (["{data}", "--max-seq-length", "1"], "--max-seq-length"),
        (["{data}", "--modle", "x"], "did you mean --model"),
    ],
)
def test_a_slip_is_refused_with_what_to_do(
    check: Check, pairs_file: Callable[..., Path], words: list[str], says: str
) -> None:
    data = pairs_file()
    before = data.read_bytes()
    code, _, err = check(*[word.format(data=data) for word in words])
    assert code == 2
    assert err.startswith("error: ")
    assert says in err
    assert len(err.splitlines()) <= 4
    assert data.read_bytes() == before


def test_messages_for_a_model_without_template_show_how_to_choose_one(
    check: Check, make_model_folder: Callable[..., Path], pairs_file: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = make_model_folder(tmp_path / "bare", chat_template=None)
    data = pairs_file(dirty_rows())
    code, _, err = check(data, "--model", folder)
    assert code == 2
    assert "no chat template" in err
    assert "--chat-template chatml" in err
    assert check(data, "--model", folder, "--chat-template", "chatml")[0] == 0


def test_the_terminal_text_is_readable_without_colour(
    check: Check, model_folder: Path, pairs_file: Callable[..., Path]
) -> None:
    code, out, _ = check(pairs_file(dirty_rows()), "--model", model_folder)
    assert code == 0
    assert "\x1b" not in out
    assert "24 read = " in out
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("prompt     <|im_start|>·"))
    end = next(i for i, line in enumerate(lines) if "not learned; answers begin at ||" in line)
    assert lines[end - 1].endswith("·↵||")
    assert [i for i, line in enumerate(lines) if line.endswith("||")] == [end - 1, end]
    assert start < end
    chosen = next(line for line in lines if line.startswith("chosen     ||"))
    assert chosen.endswith("·<|im_end|>")
    assert re.search(r"#+ +\d", out)
    assert max(map(len, lines)) <= 130


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def chat(prompt: Any, chosen: Any, rejected: Any = "No.") -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    turns = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
    return {"prompt": prompt, **turns}


@pytest.mark.parametrize(
    ("rows", "words", "says"),
    [
        pytest.param(
            [chat(user(f"{i}?"), "Yes.", "Yes.") for i in range(3)], [],
            ("0 of 3 rows usable", "3 identical text"), id="row 22: all rows dropped",
        ),
        pytest.param(
            [chat(user("Hi"), "Yes."), chat(user("Ho"), "Yes.")], [],
            ("1 pair is left for training besides 1 held out", "--micro-batch-size is 4"),
            id="row 23: a small file",
        ),
        pytest.param(
            [chat(user("Hi"), 7)], [], ("pairs.jsonl:1", "content is a number", "needed: text"),
            id="row 24: a number for content",
        ),
        pytest.param(
            [chat([{"role": "bot", "content": "Hi"}], "Yes.")], [],
            ("pairs.jsonl:1", "'bot'", "known roles"), id="row 25: an unknown role",
        ),
        pytest.param(
            [chat(user(f"{i}?"), "The sea and the moon. " * 9) for i in range(3)],
            ["--max-seq-length", "16"], ("Longest pair: ", "would keep 95 %"),
            id="row 26: answers too long",
        ),
    ],
)  # fmt: skip
def test_bad_rows_are_shown_and_the_data_called_unusable(
    check: Check, model_folder: Path, pairs_file: Callable[..., Path],
    rows: list[Any], words: list[str], says: tuple[str, ...],
) -> None:  # fmt: skip
    code, out, err = check(pairs_file(rows), "--model", model_folder, *words)
    assert (code, err) == (2, "")
    said = " ".join(out.split())
    for part in says:
        assert part in said
    assert out.splitlines()[-1].startswith("verdict  not usable")


def test_row_39_a_template_against_system_turns_is_quoted_and_they_are_folded(
    check: Check, make_model_folder: Callable[..., Path], pairs_file: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    template = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    folder = make_model_folder(tmp_path / "strict", chat_template=template)
    system = {"role": "system", "content": "Be kind."}
    rows = [chat([system, *user(f"{i}?")], f"It is {i}.") for i in range(6)]
    code, out, _ = check(pairs_file(rows), "--model", folder, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["notes"]["system folded into the first user turn"]["count"] == 6
    assert any("System role not supported" in finding["text"] for finding in found["findings"])
    prompt = "".join(token["text"] for token in found["pairs"][0]["tokens"]["prompt"])
    assert prompt.startswith("<|im_start|>user\nBe kind.\n\n0?<|im_end|>")


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.values: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


NASTY = '</pre><script>alert(1)</script><img src=x onerror="alert(2)">\' &amp; <b>'


def test_text_of_rows_never_becomes_markup_of_the_report(
    check: Check, model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    rows = dirty_rows()
    rows[0]["prompt"][0]["content"] = NASTY
    rows[0]["chosen"][0]["content"] = NASTY + " yes"
    rows[2]["prompt"][0]["content"] = NASTY
    rows.append({**rows[3], "chosen": [{"role": NASTY, "content": "x"}]})
    data = pairs_file(rows, "a&b<i>.jsonl")
    for model in ([], ["--model", model_folder]):
        page = tmp_path / "check.html"
        code, out, _ = check(data, *model, "--report", page)
        assert code == 2  # the unknown role
        assert str(page) in out
        text = page.read_text(encoding="utf-8")
        tags = Tags()
        tags.feed(text)
        assert not {"script", "img", "i", "iframe", "link"} & set(tags.tags)
        assert not any(name.startswith("on") or name in ("src", "href") for name in tags.names)
        assert "alert(1)" in tags.text
        assert "default-src 'none'" in " ".join(tags.values)
        assert "url(" not in text
        assert "http://" not in text
        assert "https://" not in text
        assert ("svg" in tags.tags) == bool(model)


def test_a_report_replaces_an_earlier_report(
    check: Check, pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    page = tmp_path / "check.html"
    assert check(pairs_file(4), "--report", page)[0] == 0
    first = page.read_text(encoding="utf-8")
    assert check(pairs_file(5), "--report", page)[0] == 0
    assert page.read_text(encoding="utf-8") != first


def test_a_report_is_never_looked_for_in_a_pipe(
    check: Check, pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.html")
    code, _, errors = check(pairs_file(), "--report", tmp_path / "pipe.html")
    assert code == 2
    assert "no report; nothing was written" in errors


def test_a_mixture_says_what_it_leaves_out(check: Check, pairs_file: Callable[..., Path]) -> None:
    rows = [{"prompt": f"a{i}", "chosen": f"It is {i}.", "rejected": "No."} for i in range(12)]
    many, few = pairs_file(rows[:10], "many.jsonl"), pairs_file(rows[10:], "few.jsonl")
    _, out, _ = check(f"{many}:2,{few}:1")
    assert "many.jsonl: 4 of its 10 rows are drawn" in " ".join(out.split())
    assert "few.jsonl: 2" not in out


def labelled(good: int, bad: int) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {i}?", "answer": f"A number, {i}.", "label": i < good}
        for i in range(good + bad)
    ]


@pytest.mark.parametrize(
    ("good", "bad", "code", "level", "said"),
    [
        (6, 6, "labels", "info", "6 answers labelled as good, 6 as bad"),
        (9, 3, "labels", "info", "--undesirable-weight 2.25"),
        (3, 12, "labels", "warning", "--desirable-weight 4 "),
        (5, 0, "one-label", "error", "5 answers labelled as good, 0 as bad"),
    ],
)
def test_labels_are_counted_and_one_alone_is_no_use(
    good: int, bad: int, code: str, level: str, said: str, model_folder: Path,
    pairs_file: Callable[..., Path], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = str(pairs_file(labelled(good, bad)))
    exit_code = program(["data", "check", data, "--model", str(model_folder), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert exit_code == (2 if level == "error" else 0)
    assert content["labels"] == {"good": good, "bad": bad}
    (finding,) = [f for f in content["findings"] if f["code"] == code]
    assert finding["level"] == level
    assert said in finding["text"] + finding["what_to_do"]
    assert content["pairs"][0]["label"] is True
    assert set(content["pairs"][0]["tokens"]) == {"prompt", "chosen"}
    # Nothing is compared, so no rule of length can be right.
    assert "length-bias" not in {f["code"] for f in content["findings"]}
    assert "--objective kto" in json.dumps(content["findings"])


def test_a_labelled_answer_is_shown_by_its_label(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data, page = str(pairs_file(labelled(4, 4))), tmp_path / "page.html"
    words = ["--model", str(model_folder), "--show", "8", "--report", str(page)]
    assert program(["data", "check", data, *words]) == 0
    shown = capsys.readouterr().out
    assert "\ngood       ||A" in shown
    assert "\nbad        ||A" in shown
    assert "rejected" not in shown
    assert "<h4>good: " in page.read_text()
