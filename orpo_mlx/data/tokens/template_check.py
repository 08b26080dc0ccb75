"""A model's chat template: chosen, set, and rendered once before anything depends on it.

A template is a program of someone else's. It runs in the sandbox of transformers, and where it
could go on for long, in another process under limits of time and memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.data.layouts.detect import Layout
from orpo_mlx.errors import ModelError, describe, reason_of
from orpo_mlx.storage.regular import read_regular_text
from orpo_mlx.storage.safe_path import child_environment, module_path

TEMPLATE_SECONDS = 10.0
TEMPLATE_MEMORY_BYTES = 4 << 30

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + 'END' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def read_template(chat_template: str) -> str:
    """Return the template that --chat-template names: "chatml" or a Jinja file.

    Raises:
        ModelError: the file cannot be read.
    """
    if chat_template == "chatml":
        return CHATML
    path = Path(chat_template).expanduser()
    try:
        return read_regular_text(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"--chat-template {chat_template}: not a readable Jinja file ({reason_of(error)}).",
            "Give 'chatml' or the path of a .jinja file.",
        ) from error


def set_template(tokenizer: Any, template: str) -> None:
    """Give a tokenizer of mlx-lm's a template, in place of its own."""
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


def template_notes(layout: Layout, tokenizer: Any, name: str = "the model") -> list[str]:
    """Dry-run the chat template if the data needs one; returns what the user should know.

    Raises:
        ModelError: as `check_chat_template`.
    """
    if layout.needs_template:
        report = check_chat_template(tokenizer, name)
        if not report.supports_system:
            return [
                "the chat template takes no system message, so system texts are put before the "
                f"first user turn (it says: {report.system_error or 'nothing, it drops them'})"
            ]
    elif tokenizer.has_chat_template and not layout.is_tokenized:
        return [
            "prompt, chosen and rejected are plain text, so this model's chat template is not "
            "used; to train chat answers on them add --layout single-turn"
        ]
    return []


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
            results[name] = ("", describe(error))
    return results


_CHILD = """\
import json, resource, sys
payload = json.load(sys.stdin)
sys.path[:] = payload["path"]
try:
    resource.setrlimit(resource.RLIMIT_AS, (payload["memory"],) * 2)
except (ValueError, OSError):
    pass  # macOS does not limit address space
from orpo_mlx.data.tokens.template_check import render_samples
json.dump(render_samples(payload), sys.stdout)
"""


def _render_in_child(payload: dict[str, Any], name: str) -> dict[str, tuple[str, str]]:
    """Render in another process: nested loops can run for hours and cannot be interrupted here."""
    sent = json.dumps({**payload, "path": module_path(), "memory": TEMPLATE_MEMORY_BYTES})
    other = "Give another template with --chat-template chatml or --chat-template FILE.jinja."
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=sent,
            capture_output=True,
            encoding="utf-8",
            timeout=TEMPLATE_SECONDS,
            env=child_environment(),
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
