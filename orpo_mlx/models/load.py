"""Find a model, on disk or on the Hub, have it checked, and only then load it.

What a folder can get wrong is looked at before its weights are read (check.py), and so is the
chat template (data/tokens/template_check.py). No code that comes with a model is ever run.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.data.tokens.template_check import read_template, set_template
from orpo_mlx.errors import ConfigError, ModelError, describe
from orpo_mlx.models.check import CONFIG, TOKENIZER_CONFIG, check_model_folder, check_weight_names
from orpo_mlx.models.download import download_model
from orpo_mlx.models.precision import VARIABLE
from orpo_mlx.storage.safetensors import read_json_object
from orpo_mlx.text.progress import OnProgress
from orpo_mlx.text.spelling import did_you_mean


@dataclass(frozen=True)
class ModelFolder:
    """A checked model on this machine.

    Attributes:
        path: the folder.
        name: as the user gave it, a path or a Hub id.
        revision: the commit of a Hub model, None for a local folder.
        is_local: whether the user named a folder.
        note: what the user should know, such as that a cached copy was used; often empty.
    """

    path: Path
    name: str
    revision: str | None = None
    is_local: bool = True
    note: str = ""

    @property
    def vocab_size(self) -> int | None:
        """Rows of the embedding by config.json, None if it does not say.

        Raises:
            ModelError: the file cannot be read.
        """
        return read_json_object(self.path / CONFIG, ModelError).get("vocab_size")


@dataclass(frozen=True)
class LoadedModel:
    """An mlx-lm model in memory, in evaluation mode.

    Attributes:
        model: an `mlx.nn.Module`.
        tokenizer: mlx-lm's wrapper of the tokenizer.
        config: config.json as mlx-lm read it.
        fingerprint: see `fingerprint`.
    """

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    path: Path
    fingerprint: str


# Finding


def resolve_model(
    name: str, revision: str | None = None, on_progress: OnProgress | None = None
) -> ModelFolder:
    """Return the folder of a model, downloading a Hub model that is not here yet, and check it.

    Args:
        name: a folder, or a Hub id such as "mlx-community/Qwen3-0.6B-4bit".
        revision: branch, tag or commit of a Hub model.
        on_progress: told of a download.

    Raises:
        ModelError: nothing is there, the Hub says no, or the folder cannot be used.
        ConfigError: a revision was given for a folder.
    """
    path = Path(name).expanduser()
    if path.exists():
        if revision is not None:
            raise ConfigError(
                f"--revision {revision}: {name} is a folder; only Hub models have revisions.",
                "Leave out --revision, or give a Hub id.",
            )
        check_model_folder(path)
        return ModelFolder(path.resolve(), name)
    if is_path_like(name):
        near = did_you_mean(path.name, _sibling_names(path))
        raise ModelError(
            f"{name}: there is no such folder{near}",
            "Give an existing model folder, or a Hub id such as mlx-community/Qwen3-0.6B-4bit.",
        )
    found = download_model(name, revision, on_progress)
    check_model_folder(found.path)
    return ModelFolder(found.path, name, found.commit_hash, is_local=False, note=found.note)


def is_path_like(name: str) -> bool:
    """Return whether a name can only mean a path, not a Hub id."""
    return (
        name.startswith((".", "/", "~"))
        or name.endswith("/")
        or "\\" in name
        or (name.count("/") > 1)
    )


def _sibling_names(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return []


# Telling one from another


_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


def fingerprint(path: Path) -> str:
    """Return a sha256 that another model will not share, in well under a second.

    Hashed are the configuration, tokenizer and template files, and of each weight file its name,
    size, header and 16 samples of 64 kB: a base and its fine-tuned version differ nearly
    everywhere, so reading all of it would prove no more.
    """
    digest = hashlib.sha256()
    for name in (CONFIG, "tokenizer.json", TOKENIZER_CONFIG, "chat_template.jinja"):
        file = path / name
        content = file.read_bytes() if file.exists() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    for name in check_weight_names([entry.name for entry in path.iterdir()], str(path)):
        size = (path / name).stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with (path / name).open("rb") as stream:
            start = stream.read(8)
            header = stream.read(min(int.from_bytes(start, "little"), 100 << 20))
            digest.update(start + header)
            first, room = stream.tell(), size - stream.tell() - _SAMPLE_BYTES
            for i in range(_SAMPLES):
                stream.seek(first + max(0, room) * i // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


# Tokenizer


def load_tokenizer(folder: ModelFolder | Path, chat_template: str | None = None) -> Any:
    """Load mlx-lm's tokenizer wrapper; no code of the model is run and nothing is asked.

    Args:
        folder: a checked model folder.
        chat_template: "chatml" or a Jinja file, in place of the model's own.

    Raises:
        ModelError: the tokenizer or the template file cannot be read.
    """
    path = _path_of(folder)
    template = None if chat_template is None else read_template(chat_template)
    from mlx_lm import utils

    try:
        eos_token_ids = utils.load_config(path).get("eos_token_id")
        tokenizer = utils.load_tokenizer(path, {"trust_remote_code": False}, eos_token_ids)
    except Exception as error:  # every damaged file has its own kind; see the module docstring
        raise ModelError(
            f"{path}: the tokenizer cannot be read ({describe(error)}).",
            "Copy or download tokenizer.json, tokenizer_config.json and config.json again; the "
            "tokenizer is built from all three.",
        ) from error
    # Rows that are too long are cut and counted by the data layer; transformers would warn too.
    tokenizer._tokenizer.model_max_length = 1 << 40
    if template is not None:
        set_template(tokenizer, template)
    return tokenizer


# Loading


def load_model(
    folder: ModelFolder | Path,
    tokenizer: Any = None,
    chat_template: str | None = None,
    *,
    lazy: bool = False,
) -> LoadedModel:
    """Check a folder and load its model into memory.

    Args:
        folder: from `resolve_model`, or a path.
        tokenizer: if it was loaded already.
        chat_template: for loading the tokenizer; see `load_tokenizer`.
        lazy: leave the weights on disk until `read_weights`, so that what is to be put on the
            model can be checked first.

    Raises:
        ModelError: anything about the folder, or it does not fit in memory.
    """
    path = _path_of(folder)
    check_model_folder(path)
    os.environ.setdefault(VARIABLE, "0")  # where no run's setting was followed before
    if tokenizer is None:
        tokenizer = load_tokenizer(path, chat_template)
    from mlx_lm import utils

    try:
        model, config = utils.load_model(path, lazy=True, trust_remote_code=False)
    except Exception as error:  # mlx-lm raises some twenty kinds for damaged folders
        raise _load_failure(path, error) from error
    loaded = LoadedModel(model, tokenizer, config, path, fingerprint(path))
    if not lazy:
        read_weights(loaded)
    return loaded


def read_weights(loaded: LoadedModel) -> None:
    """Bring the weights of a model that was loaded with `lazy=True` into memory.

    Raises:
        ModelError: they do not fit, cannot be read, or hold NaN or infinity.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from orpo_mlx.models.weights import check_finite

    arrays = dict(tree_flatten(loaded.model.parameters()))
    try:
        mx.eval(arrays)
    except Exception as error:  # whatever the device or the disk objects to
        raise _load_failure(loaded.path, error) from error
    # By the file's names: an adapter may be on the model already.
    named = {re.sub(r"\.(linear|embedding)\.", ".", name): array for name, array in arrays.items()}
    check_finite(loaded.path, named, ModelError)


def _load_failure(path: Path, error: Exception) -> ModelError:
    """Turn what mlx-lm raised into a message that names the file to look at."""
    text = describe(error)
    if isinstance(error, MemoryError) or re.search(r"alloc|out of memory", str(error), re.I):
        return ModelError(
            f"{path}: the model does not fit in memory ({text}).",
            "Use a smaller or more strongly quantized model, or close other programs.",
        )
    if re.search(r"parameters? (not )?in model|Missing \d+ parameters|Expected shape", str(error)):
        return ModelError(
            f"{path}: the weights do not fit {CONFIG} ({text}).",
            "Download config.json and the weight files again, from the same revision.",
        )
    return ModelError(
        f"{path / CONFIG}: mlx-lm cannot build a model from it ({text}).",
        "A value is missing or wrong: download the file again. If it is the original, update "
        "mlx-lm.",
    )


def _path_of(folder: ModelFolder | Path) -> Path:
    return folder.path if isinstance(folder, ModelFolder) else folder
