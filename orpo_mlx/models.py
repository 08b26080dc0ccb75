"""Find a model, check it from the outside, and only then load it.

Everything a folder can get wrong is looked at before its weights are read: mlx-lm and transformers
answer the same mistakes with some twenty kinds of exception, ask on the terminal whether to run a
model's code, or hang in its chat template. No code that comes with a model is ever run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ConfigError, ModelError
from orpo_mlx.import_gate import MODEL_DTYPES, check_not_placeholder, check_safetensors
from orpo_mlx.suggestions import did_you_mean

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".npz", ".pkl", ".ckpt")
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("tiktoken.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)
TEMPLATE_SECONDS = 10.0
TEMPLATE_MEMORY_BYTES = 4 << 30

OnProgress = Callable[[int, int, str], None]


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
        on_progress: called with (bytes done, bytes total, label) during a download.

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
    from orpo_mlx.hub import download_model

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


# Checking


def check_model_folder(path: Path) -> dict[str, Any]:
    """Check everything that can be checked without reading the weights themselves.

    Returns:
        The content of config.json.

    Raises:
        ModelError: naming the file that is missing, damaged, unsupported or wants to run code.
    """
    config = _check_config(path)
    tokenizer_config = path / TOKENIZER_CONFIG
    if tokenizer_config.exists():
        refuse_code(read_json_object(tokenizer_config), str(tokenizer_config))
    _check_tokenizer_files(path)
    weight_headers(path)
    return config


def _check_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ModelError(
            f"{path}: not a folder; a model is a folder with config.json and model*.safetensors.",
            "GGUF and other single files cannot be trained: give the folder of the original model.",
        )
    if not (path / CONFIG).exists():
        if (path / "adapter_config.json").exists():
            raise ModelError(
                f"{path}: this is an adapter, not a model ({CONFIG} is missing).",
                "Give the base model as --model and this folder as --init-adapter.",
            )
        raise ModelError(
            f"{path}: {CONFIG} is missing, so this is no model folder.",
            "Give the folder that holds config.json, tokenizer files and model*.safetensors.",
        )
    config = read_json_object(path / CONFIG)
    refuse_code(config, str(path / CONFIG))
    check_model_type(config, str(path / CONFIG))
    return config


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        ModelError: naming the file and, where there is one, the line.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: not a regular file.", "Replace it by the real file.")
    check_not_placeholder(path, ModelError)
    again = "Copy or download the file again."
    try:
        value = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ModelError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).", again
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({_first_line(error)}).", again) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a {type(value).__name__}; an object is needed.", again)
    return value


def refuse_code(config: dict[str, Any], where: str) -> None:
    """Refuse a model that cannot be loaded without running Python files of its own.

    Many models that mlx-lm builds itself still name such files under `auto_map`; those load, and
    the files are never run, because everything is loaded with `trust_remote_code=False`.

    Raises:
        ModelError: `model_file` is set, or `auto_map` for an architecture mlx-lm does not have.
    """
    for key in ("model_file", "auto_map"):
        if not config.get(key):
            continue
        if key == "auto_map" and config.get("model_type") in supported_model_types():
            continue
        shown = json.dumps(config[key], default=str)[:120]
        raise ModelError(
            f"{where}: {key} asks to run code that comes with the model ({shown}). It is "
            "refused and was not run.",
            f"Use a model that mlx-lm supports itself, such as one from mlx-community without "
            f"{key}.",
        )


def check_model_type(config: dict[str, Any], where: str) -> None:
    """Check that the installed mlx-lm knows the architecture, without importing it.

    Raises:
        ModelError: `model_type` is missing or unknown.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelError(
            f"{where}: model_type is {'missing' if model_type is None else repr(model_type)}; "
            "it must name the architecture, such as llama.",
            "Download the file again; a folder of another program may not be a model for mlx-lm.",
        )
    known = supported_model_types()
    if model_type not in known and model_type not in _remapped_model_types():
        version = importlib.metadata.version("mlx-lm")
        raise ModelError(
            f"{where}: model_type {model_type!r} is not supported by mlx-lm {version}"
            f"{did_you_mean(model_type, known)}",
            'Update mlx-lm, or choose a supported model. List: python -c "from orpo_mlx.models '
            'import supported_model_types as s; print(*s())"',
        )


def supported_model_types() -> list[str]:
    """Return the architectures the installed mlx-lm has a file for, sorted."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("mlx-lm is not installed.", "Install it: pip install mlx-lm")
    folder = Path(spec.submodule_search_locations[0], "models")
    # Parts shared by models lie in the same folder; only a model has both names.
    return sorted(
        file.stem
        for file in folder.glob("*.py")
        if {"Model", "ModelArgs"} <= set(re.findall(r"\w+", file.read_text(encoding="utf-8")))
    )


def _remapped_model_types() -> set[str]:
    from mlx_lm import utils

    by_class = getattr(utils, "MODEL_ARCHITECTURE_REMAPPING", {})
    return set(utils.MODEL_REMAPPING) | {model_type for model_type, _ in by_class}


def _check_tokenizer_files(path: Path) -> None:
    found = [names for names in TOKENIZER_FILES if all((path / n).exists() for n in names)]
    if not found and not list(path.glob("*.tiktoken")):
        raise ModelError(
            f"{path}: no tokenizer is there; looked for tokenizer.json, tokenizer.model and the "
            "like.",
            "Copy the tokenizer files of the model into the folder, or download it again.",
        )
    for name in found[0] if found else ():
        check_not_placeholder(path / name, ModelError)


# Weights


def weight_headers(path: Path) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Check the weight files and return their headers: file name to tensor name to (dtype, shape).

    Links are followed, since the Hub's cache is made of them, but must end at a regular file.

    Raises:
        ModelError: weights are missing, incomplete, a placeholder, unsound or doubly there.
    """
    names = check_weight_names([entry.name for entry in path.iterdir()], str(path))
    _check_index(path, names)
    headers = {}
    owner: dict[str, str] = {}
    for name in names:
        headers[name] = check_safetensors(
            path / name, max_bytes=None, dtypes=MODEL_DTYPES, error=ModelError
        )
        for tensor in headers[name]:
            if tensor in owner:
                raise ModelError(
                    f"{path}: tensor {tensor} is in {owner[tensor]} and in {name}; mlx-lm would "
                    "take either.",
                    "Remove the files of the older copy, or download into an empty folder.",
                )
            owner[tensor] = name
    return headers


def check_weight_names(names: Iterable[str], where: str) -> list[str]:
    """Return the weight files among the names of a folder, sorted.

    Raises:
        ModelError: there are none that mlx-lm reads; pickle files are named as such.
    """
    names = sorted(names)
    weights = [n for n in names if n.startswith("model") and n.endswith(".safetensors")]
    if weights:
        return weights
    pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    others = [name for name in names if name.endswith((".safetensors", ".gguf"))]
    if pickles and not others:
        raise ModelError(
            f"{where}: only {', '.join(pickles[:3])}; pickle weights are not read, since loading "
            "them can run code.",
            "Look for a safetensors version (mlx-community has many), or convert it where you "
            "trust it: mlx_lm.convert --hf-path MODEL --mlx-path FOLDER.",
        )
    found = f" (found: {', '.join(others[:3])})" if others else ""
    raise ModelError(
        f"{where}: no weights named model*.safetensors{found}.",
        "Give a complete model folder in safetensors format, or download the model again.",
    )


def _check_index(path: Path, names: list[str]) -> None:
    if not (path / INDEX).exists():
        return
    weight_map = read_json_object(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(
            f"{path / INDEX}: weight_map is missing; it must name the file of each tensor.",
            "Download the file again.",
        )
    # Only compared with names that are there; never used as a path.
    shards = {str(shard) for shard in weight_map.values()}
    missing = sorted(shards - set(names))
    if missing:
        raise ModelError(
            f"{path}: {len(missing)} of {len(shards)} weight files named in {INDEX} are missing; "
            f"the first is {missing[0]}.",
            "Download the missing files: hf download REPO --local-dir FOLDER goes on where it "
            "stopped.",
        )


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


# Tokenizer and chat template


def load_tokenizer(folder: ModelFolder | Path, chat_template: str | None = None) -> Any:
    """Load mlx-lm's tokenizer wrapper; no code of the model is run and nothing is asked.

    Args:
        folder: a checked model folder.
        chat_template: "chatml" or a Jinja file, in place of the model's own.

    Raises:
        ModelError: the tokenizer or the template file cannot be read.
    """
    path = _path_of(folder)
    template = None if chat_template is None else _read_template(chat_template)
    from mlx_lm import utils

    try:
        eos_token_ids = utils.load_config(path).get("eos_token_id")
        tokenizer = utils.load_tokenizer(path, {"trust_remote_code": False}, eos_token_ids)
    except Exception as error:  # every damaged file has its own kind; see the module docstring
        raise ModelError(
            f"{path}: the tokenizer cannot be read ({_describe(error)}).",
            "Copy or download tokenizer.json, tokenizer_config.json and config.json again; the "
            "tokenizer is built from all three.",
        ) from error
    # Rows that are too long are cut and counted by the data layer; transformers would warn too.
    tokenizer._tokenizer.model_max_length = 1 << 40
    if template is not None:
        _set_template(tokenizer, template)
    return tokenizer


CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + 'END' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _read_template(chat_template: str) -> str:
    if chat_template == "chatml":
        return CHATML
    path = Path(chat_template).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"--chat-template {chat_template}: not a readable Jinja file ({_first_line(error)}).",
            "Give 'chatml' or the path of a .jinja file.",
        ) from error


def _set_template(tokenizer: Any, template: str) -> None:
    if template is CHATML:
        # A turn must end in a token the model stops at; text that is split into pieces is not one.
        vocabulary = tokenizer.get_vocab()
        end = "<|im_end|>" if "<|im_end|>" in vocabulary else tokenizer.eos_token
        template = template.replace("END", end or "<|im_end|>")
    tokenizer.chat_template = template
    tokenizer.has_chat_template = True
    # A template written in Python by mlx-lm would go first.
    tokenizer._chat_template = None


@dataclass(frozen=True)
class TemplateReport:
    """What a dry run of the chat template showed.

    Attributes:
        supports_system: whether a system message can be rendered; else it is to be folded into the
            first user turn.
        system_error: what the template said against it, "" if nothing.
    """

    supports_system: bool = True
    system_error: str = ""


def check_chat_template(tokenizer: Any, name: str = "the model") -> TemplateReport:
    """Render a few messages before weights are loaded, under a time limit where it could matter.

    Args:
        tokenizer: from `load_tokenizer`.
        name: of the model, for messages.

    Raises:
        ModelError: there is no template, or it fails, does not end, or leaves the answer out.
    """
    if not tokenizer.has_chat_template:
        raise ModelError(
            f"{name}: the tokenizer has no chat template, and the data holds messages.",
            "Choose one with --chat-template chatml or --chat-template FILE.jinja, or use a chat "
            "(instruct) version of the model.",
        )
    template = _template_text(tokenizer, name)
    if template is None:
        return TemplateReport()
    payload = {"template": template, "special": dict(tokenizer.special_tokens_map)}
    results = render_samples(payload) if _is_simple(template) else _render_in_child(payload, name)
    return _judge(results, name)


def _template_text(tokenizer: Any, name: str) -> str | None:
    """Return the Jinja text, or None for a template that mlx-lm wrote in Python."""
    if tokenizer._chat_template is not None:
        return None
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise ModelError(
                f"{name}: the tokenizer has chat templates named {', '.join(template)}, and none "
                "named default.",
                "Save the one to use as a file and give it with --chat-template FILE.jinja.",
            )
        return template["default"]
    return template


def _is_simple(template: str) -> bool:
    """Return whether rendering surely ends soon: one loop over the messages and nothing else."""
    loops = len(re.findall(r"\bfor\b", template))
    return loops <= 1 and not re.search(r"range|macro|call|import|include|\*", template)


SAMPLES = {
    "prompt": [{"role": "user", "content": "Sample question?"}],
    "system": [
        {"role": "system", "content": "Sample instruction."},
        {"role": "user", "content": "Sample question?"},
    ],
    "answer": [
        {"role": "user", "content": "Sample question?"},
        {"role": "assistant", "content": "Sample answer."},
    ],
}


def render_samples(payload: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Render each of `SAMPLES`; returns (text, error) by name, one of the two empty."""
    from transformers.utils.chat_template_utils import render_jinja_template

    results = {}
    for name, messages in SAMPLES.items():
        try:
            rendered = render_jinja_template(
                conversations=[messages],
                chat_template=payload["template"],
                add_generation_prompt=name != "answer",
                **payload["special"],
            )
            results[name] = (rendered[0][0], "")
        except Exception as error:  # the template is a program of someone else's
            results[name] = ("", _describe(error))
    return results


_CHILD = """\
import json, resource, sys
payload = json.load(sys.stdin)
sys.path[:] = payload["path"]
try:
    resource.setrlimit(resource.RLIMIT_AS, (payload["memory"],) * 2)
except (ValueError, OSError):
    pass  # macOS does not limit address space
from orpo_mlx.models import render_samples
json.dump(render_samples(payload), sys.stdout)
"""


def _render_in_child(payload: dict[str, Any], name: str) -> dict[str, tuple[str, str]]:
    """Render in another process: nested loops can run for hours and cannot be interrupted here."""
    sent = json.dumps({**payload, "path": sys.path, "memory": TEMPLATE_MEMORY_BYTES})
    other = "Give another template with --chat-template chatml or --chat-template FILE.jinja."
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            input=sent,
            capture_output=True,
            encoding="utf-8",
            timeout=TEMPLATE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{name}: rendering the chat template took longer than {TEMPLATE_SECONDS:g} seconds "
            "and was stopped.",
            other,
        ) from error
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise ModelError(f"{name}: the chat template cannot be rendered ({last[0][:200]}).", other)
    return {key: (text, error) for key, (text, error) in json.loads(child.stdout).items()}


def _judge(results: dict[str, tuple[str, str]], name: str) -> TemplateReport:
    other = "Give another template with --chat-template chatml or --chat-template FILE.jinja."
    for sample in ("prompt", "answer"):
        text, error = results[sample]
        if error:
            raise ModelError(f"{name}: the chat template fails ({error}).", other)
        content = SAMPLES[sample][-1]["content"]
        if content not in text:
            raise ModelError(
                f"{name}: the chat template leaves out the {SAMPLES[sample][-1]['role']} message, "
                "so there would be nothing to learn.",
                other,
            )
    text, error = results["system"]
    if not error and SAMPLES["system"][0]["content"] not in text:
        error = "it leaves the system message out"
    return TemplateReport(not error, error)


# Loading


def load_model(
    folder: ModelFolder | Path, tokenizer: Any = None, chat_template: str | None = None
) -> LoadedModel:
    """Check a folder and load its model into memory.

    Args:
        folder: from `resolve_model`, or a path.
        tokenizer: if it was loaded already.
        chat_template: for loading the tokenizer; see `load_tokenizer`.

    Raises:
        ModelError: anything about the folder, or it does not fit in memory.
    """
    path = _path_of(folder)
    check_model_folder(path)
    if tokenizer is None:
        tokenizer = load_tokenizer(path, chat_template)
    from mlx_lm import utils

    try:
        model, config = utils.load_model(path, trust_remote_code=False)
    except Exception as error:  # mlx-lm raises some twenty kinds for damaged folders
        raise _load_failure(path, error) from error
    return LoadedModel(model, tokenizer, config, path, fingerprint(path))


def _load_failure(path: Path, error: Exception) -> ModelError:
    """Turn what mlx-lm raised into a message that names the file to look at."""
    text = _describe(error)
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


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Some name the field on the first line and the reason on the next.
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return text[:200] or type(error).__name__
