"""Wrong input of `orpo-mlx export` and `adapter import`: rows 41 to 48 of the table of bad input.

The promises are those of `test_bad_input.py`: exit code 2, `error:` first, at most four lines, no
traceback, and nothing written.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.damage import DAMAGES, SETTINGS, edit_json

from orpo_mlx.__main__ import main

row = pytest.param
FORMATS = ("mlx", "peft", "gguf-lora")


@pytest.fixture(scope="session")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model, as a run saves it."""
    from mlx_lm.utils import load_model

    from orpo_mlx.adapters.files import save_adapter
    from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
    from orpo_mlx.models.load import fingerprint

    model, _ = load_model(model_folder)
    spec = AdapterSpec(rank=2, scale=2.0)
    attach_adapter(model, spec, seed=0)
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    save_adapter(model, spec, folder, str(model_folder), fingerprint(model_folder))
    return folder


@pytest.fixture
def adapter(trained: Path, copy_folder: Callable[..., Path]) -> Path:
    """The same, free to be damaged."""
    return copy_folder(trained, "adapter")


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Return path and content of all there is, None for folders."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return `refused(*words, says=(...))`: run the command, check every promise."""
    monkeypatch.chdir(tmp_path)

    def check(*words: object, says: tuple[str, ...], process: bool = False) -> str:
        before = everything_in(tmp_path)
        arguments = [str(word) for word in words]
        if process:
            command = [sys.executable, "-m", "orpo_mlx", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            code, err = done.returncode, done.stderr
        else:
            capfd.readouterr()
            code = main(arguments)
            err = capfd.readouterr().err
        assert code == 2, err
        assert err.startswith("error: "), err
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 4, err
        for part in says:
            assert part in err
        assert everything_in(tmp_path) == before
        return err

    return check


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_a_bad_adapter_is_named_with_the_tensor(
    refused: Callable[..., str],
    adapter: Path,
    damage: Callable[[Path], None],
    says: tuple[str, ...],
    format: str,
) -> None:
    damage(adapter)
    refused("export", adapter, "--to", format, says=(str(adapter), *says))


def test_row_42_a_peft_adapter_is_led_to_the_import(
    refused: Callable[..., str], trained: Path, tmp_path: Path
) -> None:
    peft = tmp_path / "peft"
    main(["export", str(trained), "--to", "peft", "--out", str(peft)])
    says = (str(peft), "PEFT's format", f"orpo-mlx adapter import {peft}")
    refused("export", peft, "--to", "gguf-lora", says=says)


@pytest.mark.parametrize("process", [False, row(True, id="as a process")])
def test_row_45_another_base_names_both(
    refused: Callable[..., str],
    make_model_folder: Callable[..., Path],
    model_folder: Path,
    adapter: Path,
    tmp_path: Path,
    process: bool,
) -> None:
    other = make_model_folder(tmp_path / "other", seed=1)
    words = ("export", adapter, "--to", "peft", "--model", other)
    says = (f"was trained on {model_folder}", f"the base model here is {other}")
    refused(*words, says=says, process=process)


def test_row_45_a_base_that_changed_in_its_place_is_noticed(
    refused: Callable[..., str],
    make_model_folder: Callable[..., Path],
    adapter: Path,
    tmp_path: Path,
) -> None:
    edit_json(adapter / SETTINGS, base_model=str(make_model_folder(tmp_path / "other", seed=1)))
    refused("export", adapter, "--to", "peft", says=("was trained on",))


def test_row_46_an_unknown_architecture_is_refused_with_the_list(
    refused: Callable[..., str],
    make_model_folder: Callable[..., Path],
    adapter: Path,
    tmp_path: Path,
) -> None:
    base = make_model_folder(tmp_path / "base", model_type="helium", attention_bias=False,
                             mlp_bias=False, head_dim=16)  # fmt: skip
    edit_json(adapter / SETTINGS, base_model=str(base), base_fingerprint=None)
    says = ("'helium'", "llama", "qwen3_moe", "gemma3_text", "othing was written", "--to peft")
    refused("export", adapter, "--to", "gguf-lora", says=says)
    assert main(["export", str(adapter), "--to", "peft", "--out", str(tmp_path / "peft")]) == 0


@pytest.mark.parametrize("format", FORMATS)
def test_row_47_what_is_there_stays_and_force_replaces_it(
    refused: Callable[..., str], adapter: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / ("x.gguf" if format == "gguf-lora" else "out")
    words = ("export", adapter, "--to", format, "--out", out)
    assert main([str(word) for word in words]) == 0
    refused(*words, says=(str(out), "is there already", "--force"))
    assert main([*(str(word) for word in words), "--force"]) == 0


def test_row_47_a_folder_of_other_things_is_safe_from_force(
    refused: Callable[..., str], adapter: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    words = ("export", adapter, "--to", "peft", "--out", tmp_path / "mine", "--force")
    refused(*words, says=(str(tmp_path / "mine"), "was not written by an export"))


@pytest.mark.parametrize("format", FORMATS)
def test_row_48_a_full_disk_is_told_before_anything_is_written(
    refused: Callable[..., str], adapter: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(adapter)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    says = ("needs ", "1000 bytes) free")
    refused("export", adapter, "--to", format, says=says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "nothing-here", "--to", "peft"], ("there is no run 'nothing-here'",)),
        (["export", "adapter", "--to", "pfet"], ("Did you mean peft?",)),
        (["export", "adapter"], ("--to FORMAT",)),
        (["adapter", "import", "nothing-here", "--out", "x"], ("no PEFT adapter is there",)),
    ],
)
def test_a_process_refuses_with_the_same_words(
    refused: Callable[..., str], adapter: Path, words: list[str], says: tuple[str, ...]
) -> None:
    refused(*words, says=says, process=True)
