"""What a request may say; anything else is refused before mlx-lm's server sees it.

mlx-lm lets a request name models, adapters and pictures to fetch, and an odd value can end the
thread that computes. Only names of the served models pass here, and values within their bounds.
"""

from __future__ import annotations

import json
import math
from typing import Any

from orpo_mlx.serving.served_models import ServedModels
from orpo_mlx.text.spelling import did_you_mean

PATHS = ("/v1/chat/completions", "/chat/completions", "/v1/completions")
MOST_BYTES = 16 << 20
_MOST_STOPS = 16


class RequestRefused(Exception):
    """A request cannot be answered; the fields are those of OpenAI's error object."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        said = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": said}


def read_request(path: str, content: bytes, served: ServedModels) -> dict[str, Any]:
    """Return the fields of a request without those that are null.

    Raises:
        RequestRefused: it is no JSON object, or says what it must not.
    """
    try:
        body = json.loads(content, parse_constant=_not_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestRefused("the body is not a JSON object")
    body = {name: value for name, value in body.items() if value is not None}
    _check_model(body, served)
    _check_prompt(path, body, served)
    _check_numbers(body, served.vocabulary)
    _check_others(body)
    return body


def require_known(name: Any, served: ServedModels) -> None:
    """Refuse the name of a model that is not served.

    Raises:
        RequestRefused: with status 404, as OpenAI's.
    """
    if name in served.models if isinstance(name, str) else False:
        return
    names = list(served.models)
    near = did_you_mean(name, names) if isinstance(name, str) else ""
    raise RequestRefused(
        f"model {str(name)[:200]!r} is not served here; there are: {', '.join(names)}{near}",
        "model", "model_not_found", 404,
    )  # fmt: skip


def _check_model(body: dict[str, Any], served: ServedModels) -> None:
    if "model" not in body:
        names = ", ".join(served.models)
        raise RequestRefused(f"model is missing; there are: {names}", "model")
    require_known(body["model"], served)
    for name in ("adapters", "draft_model"):
        if name in body:
            raise RequestRefused(f"{name}: a request chooses by model alone", name)


def _check_prompt(path: str, body: dict[str, Any], served: ServedModels) -> None:
    if path == "/v1/completions":
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise RequestRefused("prompt must be one text that is not empty", "prompt")
        return
    if not served.chats:
        raise RequestRefused(
            "this model has no chat template: it continues text, POST /v1/completions", "messages"
        )
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise RequestRefused(
            "messages must be a list of objects with a role and a content of text", "messages"
        )


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in parts
    )


def _check_numbers(body: dict[str, Any], vocabulary: int) -> None:
    for name, low, high in (("top_k", 0, vocabulary - 1), ("seed", 0, 2**63 - 1), ("n", 1, 1)):
        if name in body and not _is_whole(body[name], low, high):
            raise RequestRefused(f"{name} must be a whole number from {low} to {high}", name)
    bias = body.get("logit_bias", {})
    if not isinstance(bias, dict) or not all(
        key.isascii() and key.isdigit() and int(key) < vocabulary for key in map(str, bias)
    ):
        raise RequestRefused(
            f"logit_bias must be an object of token ids from 0 to {vocabulary - 1}", "logit_bias"
        )


def _check_others(body: dict[str, Any]) -> None:
    stop = body.get("stop", [])
    words = [stop] if isinstance(stop, str) else stop
    if not (
        isinstance(words, list)
        and len(words) <= _MOST_STOPS
        and all(isinstance(word, str) and word for word in words)
    ):
        raise RequestRefused(f"stop must be up to {_MOST_STOPS} texts, none empty", "stop")
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise RequestRefused("stream_options must be an object", "stream_options")
    body["stream_options"] = {"include_usage": options.get("include_usage") is True}
    extra = body.get("chat_template_kwargs", {})
    if not isinstance(extra, dict) or not (
        extra.keys() <= {"enable_thinking"} and isinstance(extra.get("enable_thinking", True), bool)
    ):
        raise RequestRefused(
            "chat_template_kwargs takes enable_thinking, true or false", "chat_template_kwargs"
        )
    form = body.get("response_format", {"type": "text"})
    if not isinstance(form, dict) or form.get("type") != "text":
        raise RequestRefused("response_format: only text can be answered", "response_format")
    tools = body.get("tools", [])
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RequestRefused("tools must be a list of objects", "tools")


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")
