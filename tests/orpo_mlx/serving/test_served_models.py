"""What a server offers is found by its command's words and checked before weights are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.demo import model_path
from orpo_mlx.errors import ConfigError, ModelError, RunError
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.serving.served_models import find_served_models


@pytest.fixture
def finished(adapters: list[Path], tmp_path: Path) -> Callable[..., RunDirectory]:
    """Return `make(name, adapter=0, **settings) -> run`: one that has left an adapter."""

    def make(name: str, adapter: int | None = 0, **settings: Any) -> RunDirectory:
        given = {"model": str(model_path()), "data": "d", "run_dir": str(tmp_path / name)}
        run = create_run(TrainConfig(**given, **settings))
        if adapter is not None:
            shutil.copytree(adapters[adapter], run.adapter_folder)
        return run

    return make


def test_runs_are_called_by_their_ids_and_folders_by_their_names(
    finished: Callable[..., RunDirectory], adapters: list[Path]
):
    first, second = finished("run-1"), finished("run-2", 1)
    served = find_served_models([str(first.path), str(second.path), str(adapters[1])])
    assert list(served.models) == ["run-1", "run-2", "two", "demo"]
    assert served.models["run-2"].folder == second.adapter_folder.resolve()
    assert served.models["demo"].folder is None
    assert served.base_name == "demo"
    assert served.chats


def test_a_base_is_served_alone_under_its_own_name(model_folder: Path):
    served = find_served_models([], str(model_folder))
    assert list(served.models) == [served.base_name] == [model_folder.name]
    vocabulary = json.loads((model_folder / "config.json").read_text())["vocab_size"]
    assert served.vocabulary == vocabulary


def test_each_run_is_asked_in_the_template_it_was_trained_in(
    finished: Callable[..., RunDirectory], tmp_path: Path
):
    template = tmp_path / "loud.jinja"
    template.write_text(
        "{% for m in messages %}{{ m['role'].upper() + ':' + m['content'] + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}ANSWER:{% endif %}"
    )
    own, loud = finished("own"), finished("loud", 1, chat_template=str(template))
    served = find_served_models([str(own.path), str(loud.path)])
    asked: Any = [{"role": "user", "content": "Hi"}]
    texts = {name: one.encoder.render(asked, True) for name, one in served.models.items()}
    assert texts["loud"] == "USER:Hi\nANSWER:"
    assert texts["own"] == texts["demo"] != texts["loud"]
    template.unlink()
    with pytest.raises(ModelError):
        find_served_models([str(loud.path)])


def test_a_run_without_an_adapter_and_one_that_is_trained_are_refused(
    finished: Callable[..., RunDirectory],
):
    with pytest.raises(RunError, match="before it saved an adapter"):
        find_served_models([str(finished("empty", None).path)])
    busy = finished("busy")
    with busy.lock(), pytest.raises(RunError, match="is being trained"):
        find_served_models([str(busy.path)])


def test_runs_of_different_bases_are_refused(
    finished: Callable[..., RunDirectory], model_folder: Path
):
    one, other = finished("one-run"), finished("other-run", 1)
    text = other.config_file.read_text().replace(str(model_path()), str(model_folder))
    other.config_file.write_text(text)
    config = other.adapter_folder / "adapter_config.json"
    content = json.loads(config.read_text()) | {"base_fingerprint": "of another"}
    config.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as refused:
        find_served_models([str(one.path), str(other.path)])
    assert str(model_folder) in refused.value.message
    assert f"serve {other.path} --port 8081" in refused.value.what_to_do
