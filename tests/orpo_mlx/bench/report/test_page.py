"""The page says first what matters, shows what is wrong, and makes tables of what was found."""

from __future__ import annotations

import re
from typing import Any

from orpo_mlx.bench.report.page import as_markdown

CONDITIONS = {
    "kind": "conditions", "chip": "Apple M3 Pro", "model": "Mac15,6", "cores": "6 + 6",
    "memory_bytes": 18e9, "available_bytes": 12e9, "system": "macOS 15.6.1 arm64",
    "device": "GPU", "device_name": "Apple M3 Pro", "architecture": "applegpu_g15s",
    "python": "3.12.1", "orpo-mlx": "0.1.0", "commit": "abc1234", "preload": "",
    "versions": {"mlx": "0.32.4"}, "variables": {},
}  # fmt: skip
STEP = {
    "model": "4-bit", "workload": "hh", "way": "default", "scoring": "packed", "steps": 3,
    "seconds_per_pair": 0.25, "low": 0.24, "high": 0.3, "peak_memory_bytes": 2e9,
    "estimated_bytes": 2.5e9, "share_of_rate": 0.41, "pairs": 4, "round": 1,
}  # fmt: skip


def part(name: str, *rows: Any, status: str = "done", reason: str = "") -> dict[str, Any]:
    return {"name": name, "title": f"Title of {name}", "status": status, "reason": reason,
            "seconds": 12.0, "limit_seconds": 60, "rows": list(rows)}  # fmt: skip


def page(*parts: dict[str, Any], **changes: Any) -> str:
    result = {
        "command": "orpo-mlx bench", "form": "full", "started": "2026-11-30 03:00 UTC",
        "seconds": 600.0, "is_complete": True, "parts": [part("machine", CONDITIONS), *parts],
        "power": [{"after": "the start", "load": 1.5, "source": "mains", "heat": "no warning"},
                  {"after": "machine", "load": 2.5, "source": "battery", "charge": "80 %"}],
    }  # fmt: skip
    return as_markdown(result | changes)


def test_it_begins_with_the_machine_the_command_and_what_matters():
    text = page(part("verify", {"name": "gradient", "passed": True, "value": 1e-6, "limit": 1e-5}))
    assert text.startswith("# orpo-mlx bench: Apple M3 Pro, 18 GB\n")
    assert "`orpo-mlx bench`, full form, 2026-11-30 03:00 UTC, 10 min." in text
    assert "- 1 of 1 check passed (verify 1).\n" in text
    assert "| gradient | 1.0e-06 (1e-05) |  | ok |" in text
    assert "**" not in text.replace("**On battery: a Mac is slower then.**", "")


def test_what_is_wrong_stands_first_and_is_shown_unfolded():
    checks = [{"name": f"check {i}", "passed": i != 7, "value": 0.0, "limit": 0} for i in range(9)]
    text = page(part("verify", *checks, status="failed", reason="ended by SIGKILL"))
    first = text.index(
        "**Not right: Title of verify: ended by SIGKILL; Title of verify: check 7.**"
    )
    assert first < text.index("8 of 9 checks passed (verify 9).")
    shown = text[text.index("## Title of verify") : text.index("<details>")]
    assert "**failed: ended by SIGKILL**" in shown
    assert "| check 7 | 0 (0) |  | **FAILED** |" in shown
    assert "check 6" not in shown


def test_steps_are_rows_beside_the_default():
    plain = {**STEP, "way": "plain", "seconds_per_pair": 0.5, "high": 0.6, "peak_memory_bytes": 7e9,
             "estimated_bytes": 8.75e9}  # fmt: skip
    again = {**plain, "seconds_per_pair": 0.6, "round": 2}
    missing = {"model": "4-bit", "workload": "uf", "way": "plain", "problem": "needs 21 GB"}
    base = {**STEP, "round": 2}
    text = page(part("steps", STEP, plain, missing, again, base))
    row = "| 4-bit | hh | default (packed) | 4 | 0.25 (0.24-0.3) | 6 | 2 GB | 80 % | 41 % |  |  |"
    assert row in text
    rest = "| 6 | 7 GB | 80 % | 41 % | 2.20x (2.00-2.40) | 3.50x |"
    assert f"| 4-bit | hh | plain | 4 | 0.55 (0.24-0.6) {rest}" in text
    assert "| 4-bit | uf | plain |  | not measured: needs 21 GB |  |  |  |  |  |  |" in text
    first = "- plain takes 2.2x the time and 3.5x the memory of the default (1 comparison).\n"
    assert first in text
    assert "2 cases took 1.10x the time (median)" in text
    assert "CPU s" not in text


def test_an_estimate_that_was_too_low_is_said():
    text = page(part("steps", STEP | {"estimated_bytes": 1.6e9}))
    assert "125 % of what had been estimated: **the estimate was too low**" in text


def test_power_and_heat_are_told_with_how_they_changed():
    text = page()
    assert "| power | mains -> battery (80 % to 80 %) |" in text
    assert "| heat | no warning |" in text
    assert "| load | 1.5 to 2.5, median 2.0 |" in text


def test_it_warns_of_what_it_is_not():
    assert "did not come to its end" in page(is_complete=False)
    assert "times mean nothing" in page(form="short")
    on_cpu = {"parts": [part("machine", CONDITIONS | {"device": "CPU"})]}
    assert "says nothing about a Mac's GPU" in page(**on_cpu)


def test_it_warns_of_what_may_have_slowed_the_machine():
    hot = {"after": "steps", "load": 30.0, "heat": "CPU_Speed_Limit 62"}
    text = page(power=[hot])
    assert "**Slowed by heat: CPU_Speed_Limit 62.**" in text
    assert "**Other programs were busy (load 30 on 12 cores)" in text
    quiet = page(power=[{"after": "steps", "load": 3.0, "source": "mains", "heat": "no warning"}])
    assert "busy" not in quiet
    assert "**" not in quiet


def test_another_trainer_is_named_with_its_version():
    peer = {**STEP, "way": "mlx-lm-lora", "versions": {"mlx-lm-lora": "5.10.2", "mlx": "0.32.4"}}
    assert "| mlx-lm-lora (5.10.2) |" in page(part("steps", STEP, peer))


def test_a_page_can_be_made_when_nothing_but_a_failure_is_there():
    broken = part("machine", status="failed", reason="its process was ended by SIGABRT")
    text = as_markdown(
        {"command": "c", "form": "full", "started": "s", "seconds": 1.0, "is_complete": False,
         "power": [{"after": "the start", "load": 1.0}], "parts": [broken]}
    )  # fmt: skip
    assert "SIGABRT" in text
    assert "They could not be read." in text


def test_every_table_has_as_many_cells_in_each_row():
    attention = {
        "dtype": "float32", "queries": 8, "keys": 8, "width": 4, "forward_apart": 0.0,
        "gradient_apart": 1e-7, "limit": 1e-5, "passed": True, "causal_error": 2e-7,
        "array_error": 3e-7, "causal": {"seconds": 0.01, "bytes": 1e6},
        "array": {"seconds": 0.02, "bytes": 5e6},
    }  # fmt: skip
    text = page(
        part("steps", STEP),
        part("attention", attention, {**attention, "queries": 99} | {"text": "skipped"}),
        part("recurrent", {"name": "a|b", "passed": None, "text": "no gradient"}),
        part("products", {"kind": "exactness", "variable": "1", "error": 3e-4, "is_exact": False,
                          "passed": True},
             {"kind": "rate", "of": "float32", "variable": "1", "size": 9, "times": 3,
              "flop_per_second": 2e12}),
        part("models", {"kind": "model", "name": "4-bit", "shape": "s", "from": "f", "bytes": 1}),
    )  # fmt: skip
    assert "5 MB" in text
    assert "rounded to TF32" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
