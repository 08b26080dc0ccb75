"""A merged GGUF with a Modelfile, for `ollama create`.

Not a Modelfile with an ADAPTER line: recent versions of Ollama no longer make models from one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ConfigError, ExportError, ModelError
from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.formats import gguf_merged
from orpo_mlx.export.formats.gguf_base import BaseGguf
from orpo_mlx.export.formats.ollama_template import (
    ChatPieces,
    conversations,
    find_pieces,
    prompt_ids,
)
from orpo_mlx.export.go_template import render_chat
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import Exported, Target
from orpo_mlx.models.load import load_tokenizer
from orpo_mlx.storage.safetensors import read_json_object
from orpo_mlx.text.commands import command_line

MODEL, MODELFILE = "model.gguf", "Modelfile"
_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(?::[A-Za-z0-9][\w.-]*)?", re.ASCII)
_NAME_LENGTH = 80
_TEMPLATE = re.compile(r'^TEMPLATE """(.*?)"""$', re.DOTALL | re.MULTILINE)
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""generation_config.json to Modelfile."""
_SPACE = r'" " "\n" "\t" "\r"'
_TRIM = (
    '{{ define "trim" }}{{ if not . }}'
    f'{{{{ else if eq (slice . 0 1) {_SPACE} }}}}{{{{ template "trim" (slice . 1) }}}}'
    # Go's templates cannot subtract: the length of all but the first byte is one less.
    f"{{{{ else if eq (slice . (len (slice . 1))) {_SPACE} }}}}"
    '{{ template "trim" (slice . 0 (len (slice . 1))) }}{{ else }}{{ . }}{{ end }}{{ end }}'
)
_GIVEN = (
    '{{ $given := false }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $given = true }}'
    "{{ end }}{{ end }}"
)
"""Whether there is a system turn, which may be empty."""
_NO_ADAPTER = (
    "The Modelfile holds the whole merged model: recent versions of Ollama do not create models "
    "from an ADAPTER line."
)


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
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
    tokenizer = load_tokenizer(source.base.settings_folder, source.template_file)
    base = gguf_merged.open_base(source, target, say)
    pieces = find_pieces(tokenizer, base.adds_bos)
    text = modelfile(tokenizer, pieces, source.base.settings_folder)
    if pieces and not check_template(text, tokenizer, pieces, base).passed:
        pieces = None
        text = modelfile(tokenizer, None, source.base.settings_folder)

    def inspect(folder: Path) -> list[ExportCheck]:
        written = (folder / MODELFILE).read_text(encoding="utf-8")
        return [check_template(written, tokenizer, pieces, base)] if pieces else []

    done = gguf_merged.export_folder(source, target, MODEL, say, {MODELFILE: text}, inspect)
    words = ["ollama", "create", name, "-f", str(target.path / MODELFILE)]
    notes = [*done.notes, _NO_ADAPTER, *_template_notes(pieces)]
    if wants_run:
        _run(words, say)
        return replace(done, command=command_line("ollama", "run", name), serve=[], notes=notes)
    serve = [command_line("ollama", "run", name)]
    return replace(done, command=command_line(*words), serve=serve, notes=notes)


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
    last = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    before, after = pieces.user
    user = f'{{{{ if eq .Role "user" }}}}{before}{_question(pieces)}{after}'
    before, after = pieces.assistant
    said = _text(pieces, "assistant", ".Content")
    answer = f'{{{{ else if eq .Role "assistant" }}}}{before}{said}'
    answer += f"{{{{ if not $last }}}}{after}{{{{ end }}}}{{{{ end }}}}"
    header = f'{{{{ if and $last (ne .Role "assistant") }}}}{pieces.header}{{{{ end }}}}'
    loop = f"{{{{ range $i, $_ := .Messages }}}}{last}{user}{answer}{header}{{{{ end }}}}"
    return f"{_TRIM if pieces.trimmed else ''}{_beginning(pieces)}{loop}"


def _text(pieces: ChatPieces, role: str, value: str) -> str:
    return f'{{{{ template "trim" {value} }}}}' if role in pieces.trimmed else f"{{{{ {value} }}}}"


def _beginning(pieces: ChatPieces) -> str:
    """Return what stands before the turns: the system turn, or what is there without one."""
    if pieces.system is None and pieces.folded is None:
        return pieces.no_system
    given = _GIVEN if pieces.takes_empty else "{{ $given := .System }}"
    if pieces.system is None:
        return f"{given}{pieces.no_system}{{{{ $first := true }}}}"
    before, after = pieces.system
    system = f"{before}{_text(pieces, 'system', '.System')}{after}"
    return f"{given}{{{{ if $given }}}}{system}{{{{ else }}}}{pieces.no_system}{{{{ end }}}}"


def _question(pieces: ChatPieces) -> str:
    """Return the user's text, the first one with the system text that is folded into it."""
    asked = _text(pieces, "user", ".Content")
    if pieces.folded is None:
        return asked
    before, after = pieces.folded
    both = f"{before}{_text(pieces, 'system', '$.System')}{after}{asked}"
    if pieces.is_one_text and "user" in pieces.trimmed:
        frame = json.dumps(f"{before}%s{after}%s", ensure_ascii=False)
        both = _text(pieces, "user", f"(printf {frame} $.System .Content)")
    told = f"{{{{ if and $first $given }}}}{both}{{{{ else }}}}{asked}{{{{ end }}}}"
    return f"{told}{{{{ $first = false }}}}"


def check_template(
    modelfile: str, tokenizer: Any, pieces: ChatPieces, base: BaseGguf
) -> ExportCheck:
    """Render the template of a Modelfile and compare tokens with those of the model's own.

    Args:
        modelfile: its text.
        tokenizer: mlx-lm's wrapper.
        pieces: of the model's template.
        base: the GGUF, which says whether BOS is put before the text.
    """
    found = _TEMPLATE.search(modelfile)
    bos = str(tokenizer.bos_token or "") if base.adds_bos else ""
    talks, differs = list(conversations(pieces)), ""
    for talk in talks if found else []:
        theirs = prompt_ids(tokenizer, talk)
        text = bos + render_chat(found[1], talk) if found else ""
        if list(tokenizer.encode(text, add_special_tokens=False)) != theirs:
            differs = f"; not those of {talk!r:.100}"
            break
    own = base.number("tokenizer.ggml.bos_token_id")
    if bos and own not in (None, tokenizer.bos_token_id):
        differs = f"; the GGUF begins with token {own}, the model with {tokenizer.bos_token_id}"
    text = f"{len(talks)} conversations give the tokens of the model's template{differs}"
    passed = bool(found) and not differs
    return ExportCheck("template", passed, None, None, text)


def _template_notes(pieces: ChatPieces | None) -> list[str]:
    if pieces is None:
        return [
            "The chat template cannot be said in Ollama's language so that every token is the "
            "model's own, so the Modelfile has none: Ollama uses the one in the GGUF, if it knows "
            "it."
        ]
    if pieces.system is None and pieces.folded is None:
        return ["The model's template takes no system prompt, so Ollama's is left out."]
    return []


def _run(words: list[str], say: ExportListener) -> None:
    say.step(0, 1, command_line(*words))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError(
            f"ollama create ended with {done.returncode}: {done.stderr.strip()[-300:]}",
            f"What was written is whole; see what ollama says to: {command_line(*words)}.",
        )
