"""A merged GGUF with a Modelfile, for `ollama create`.

Not a Modelfile with an ADAPTER line: recent versions of Ollama no longer make models from one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ConfigError, ExportError, ModelError
from orpo_mlx.export import gguf_merged
from orpo_mlx.export.chat_pieces import ChatPieces, find_pieces
from orpo_mlx.export.progress import Progress, command_line
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import Exported, Target
from orpo_mlx.import_gate import read_json_object
from orpo_mlx.models import load_tokenizer

MODEL, MODELFILE = "model.gguf", "Modelfile"
_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(?::[A-Za-z0-9][\w.-]*)?", re.ASCII)
_NAME_LENGTH = 80
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""generation_config.json to Modelfile."""
_NO_ADAPTER = (
    "The Modelfile holds the whole merged model: recent versions of Ollama do not create models "
    "from an ADAPTER line."
)


def export(source: AdapterSource, target: Target, say: Progress) -> Exported:
    """Merge into a GGUF and write a Modelfile beside it.

    Raises:
        AdapterError, ModelError, ExportError, ExportCheckError: as `gguf_merged.export`; or
            `--run` was given and there is no ollama, or it failed.
    """
    wants_run = bool(target.options.get("run"))
    if wants_run and shutil.which("ollama") is None:
        raise ExportError(
            "--run: there is no ollama on this machine; nothing was written.",
            "Install it from ollama.com, or leave out --run.",
        )
    name = require_name(target.options.get("name") or ollama_name(source.name))
    tokenizer = load_tokenizer(source.base.settings_folder)
    pieces = find_pieces(tokenizer)
    text = modelfile(tokenizer, pieces, source.base.settings_folder)
    done = gguf_merged.export_folder(source, target, MODEL, {MODELFILE: text}, say)
    words = ["ollama", "create", name, "-f", str(target.path / MODELFILE)]
    notes = [*done.notes, _NO_ADAPTER, *_template_notes(pieces)]
    if wants_run:
        _run(words, say)
        return replace(done, command=command_line("ollama", "run", name), notes=notes)
    return replace(done, command=command_line(*words), notes=notes)


def ollama_name(text: str) -> str:
    """Return a name Ollama takes, such as "demo-20260102"."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:_NAME_LENGTH] or "tuned"


def require_name(text: str) -> str:
    """Return a name as it is if Ollama takes it: MODEL, OWNER/MODEL, each with or without :TAG.

    Raises:
        ConfigError: it does not.
    """
    parts = re.split("[/:]", text)
    if not _NAME.fullmatch(text) or any(len(part) > _NAME_LENGTH for part in parts):
        raise ConfigError(
            f"--name {text}: is no name Ollama takes: letters, digits, '.', '_' and '-', each part "
            f"beginning with a letter or digit and at most {_NAME_LENGTH} long.",
            f"Write --name {ollama_name(text)}.",
        )
    return text


# The Modelfile


def modelfile(tokenizer: Any, pieces: ChatPieces | None, settings: Path) -> str:
    """Return the Modelfile: template, stop tokens and parameters as the model has them.

    Args:
        tokenizer: mlx-lm's wrapper.
        pieces: of its chat template; without them Ollama uses the template in the GGUF.
        settings: folder of generation_config.json.
    """
    lines = [f"FROM ./{MODEL}"]
    if pieces is not None and (template := go_template(pieces)) is not None:
        lines.append(f'TEMPLATE """{template}"""')
    for token in sorted(tokenizer.eos_token_ids):
        stop = str(tokenizer.decode([token]))
        if stop.strip() and not re.search(r'["\\\n]', stop):
            lines.append(f'PARAMETER stop "{stop}"')
    lines += _parameters(settings)
    return "\n".join([*lines, ""])


def _parameters(settings: Path) -> list[str]:
    path = settings / "generation_config.json"
    if not path.is_file():
        return []
    found = read_json_object(path, ModelError)
    return [
        f"PARAMETER {theirs} {found[ours]:g}"
        for ours, theirs in _PARAMETERS.items()
        if isinstance(found.get(ours), (int, float)) and not isinstance(found[ours], bool)
    ]


def go_template(pieces: ChatPieces) -> str | None:
    """Return the template in Go's language, None if its texts cannot stand in a Modelfile."""
    fixed = [pieces.no_system, pieces.header, *pieces.user, *pieces.assistant]
    fixed += [*(pieces.system or ()), *(pieces.folded or ())]
    if any(mark in text for text in fixed for mark in ("{{", "}}", '"""')):
        return None
    system = pieces.no_system
    if pieces.system is not None:
        before, after = pieces.system
        system = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}"
        system += f"{{{{ else }}}}{pieces.no_system}{{{{ end }}}}"
    last = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    user = '{{ if eq .Role "user" }}' + "{{ .Content }}".join(pieces.user)
    if pieces.folded is not None:
        system += "{{ $first := true }}"
        folded = "{{ $.System }}".join(pieces.folded)
        folded = f"{{{{ if and $first $.System }}}}{folded}{{{{ end }}}}{{{{ $first = false }}}}"
        user = user.replace("{{ .Content }}", folded + "{{ .Content }}")
    answer = '{{ else if eq .Role "assistant" }}' + pieces.assistant[0] + "{{ .Content }}"
    answer += f"{{{{ if not $last }}}}{pieces.assistant[1]}{{{{ end }}}}{{{{ end }}}}"
    header = f'{{{{ if and $last (ne .Role "assistant") }}}}{pieces.header}{{{{ end }}}}'
    loop = "{{ range $i, $_ := .Messages }}" + last + user + answer + header + "{{ end }}"
    return system + loop


def _template_notes(pieces: ChatPieces | None) -> list[str]:
    if pieces is None:
        return [
            "The chat template cannot be said in Ollama's language exactly, so the Modelfile has "
            "none: Ollama uses the one in the GGUF, if it knows it."
        ]
    if pieces.system is None and pieces.folded is None:
        return ["The model's template takes no system prompt, so Ollama's is left out."]
    return []


def _run(words: list[str], say: Progress) -> None:
    say.step(0, 1, command_line(*words))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError(
            f"ollama create ended with {done.returncode}: {done.stderr.strip()[-300:]}",
            f"What was written is whole; see what ollama says to: {command_line(*words)}.",
        )
