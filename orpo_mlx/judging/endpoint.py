"""A judge behind HTTP: whatever speaks OpenAI's chat completions.

The key comes from the environment and goes into one header. It is taken out of all that the other
side says, and no redirection is followed: it would carry the key elsewhere.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from orpo_mlx.errors import ConfigError, ModelError, reason_of
from orpo_mlx.judging.instruction import VERSION, read_verdict
from orpo_mlx.judging.ledger import Says
from orpo_mlx.text.formatting import visible

KEY_VARIABLE = "ORPO_MLX_JUDGE_KEY"
REDACTED = "[key]"
_PATH = "/chat/completions"
_LIST, _LIST_SECONDS = "/models", 10.0
_SILENT_SECONDS = 60.0
_REPLY_SECONDS = 180.0
_MOST_BYTES = 1 << 20
_SHOWN = 200
_KEPT_SO_FAR = "What was judged is kept: the same command goes on."


class Endpoint:
    """A model of a server, asked one question at a time at temperature 0.

    Args:
        url: where it is; /v1/chat/completions may be left out.
        model: what the server calls it.
        max_tokens: of a reply.

    Raises:
        ConfigError: the address or the key cannot be meant.
    """

    def __init__(self, url: str, model: str, max_tokens: int) -> None:
        self.url = _checked_url(url)
        self.model, self.max_tokens = model, max_tokens
        self._key = _key()
        self._opener = build_opener(_NoRedirection())
        self.label = f"{model} at {self.url}"
        self._flag = f"--judge-url {self.url}"
        self.name = f"endpoint {self.url} {model} {max_tokens} {VERSION}"

    def require_ready(self) -> None:
        """Ask whether the model is there, before anything long is done for its verdicts.

        Raises:
            ModelError: the server cannot be reached, refuses, or answers nonsense.
        """
        if self._lists_model():
            return
        # Not every server has a list, or names all it serves: only a question tells.
        data = self._ask("Reply with the letter A.")
        if not _choices(data):
            raise self._no_completion(data)

    def _lists_model(self) -> bool:
        url = f"{self.url.removesuffix(_PATH)}{_LIST}"
        request = Request(url, headers=self._headers(), method="GET")
        try:
            with self._opener.open(request, timeout=_LIST_SECONDS) as response:
                listed = json.loads(_read(response))["data"]
            return any(one["id"] == self.model for one in listed)
        except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError,
                RecursionError):  # fmt: skip
            return False  # what is wrong, if anything, the question finds

    def verdicts(self, asked: Sequence[str]) -> Iterator[tuple[Says, str]]:
        """Yield the verdict on each question and the reply it was read from.

        Raises:
            ModelError: the server cannot be reached, refuses, or answers nonsense.
        """
        for text in asked:
            reply = self._reply(text)
            yield read_verdict(reply), self._redacted(reply)

    def _reply(self, text: str) -> str:
        data = self._ask(text)
        try:
            reply = _choices(data)[0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            reply = None
        if not isinstance(reply, str):
            raise self._no_completion(data)
        return reply

    def _no_completion(self, data: bytes) -> ModelError:
        return ModelError(
            f"{self._flag}: answered what is no chat completion: {self._shown(data)}.",
            "Give the address of an OpenAI-compatible server, such as "
            f"http://127.0.0.1:8080/v1. {_KEPT_SO_FAR}",
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    def _ask(self, text: str) -> bytes:
        content = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        body = json.dumps(content).encode()
        request = Request(self.url, body, self._headers(), method="POST")
        try:
            with self._opener.open(request, timeout=_SILENT_SECONDS) as response:
                return _read(response)
        except HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from None

    def _refusal(self, error: HTTPError) -> ModelError:
        with error:
            try:
                said = self._shown(error.read(_MOST_BYTES))
            except (OSError, http.client.HTTPException):
                said = "nothing"
        advice = {
            401: f"Put a valid key into {KEY_VARIABLE}.",
            403: f"Put a key into {KEY_VARIABLE} that may use this model.",
            404: "Check --judge-url and --judge-name.",
            429: "Wait until it takes requests again.",
        }.get(error.code, "Look at the server; --judge-name and --judge-tokens may not suit it.")
        if 300 <= error.code < 400:
            advice = "It points elsewhere: give the final address as --judge-url."
        return ModelError(
            f"{self._flag}: refused with HTTP {error.code}: {said}.", f"{advice} {_KEPT_SO_FAR}"
        )

    def _unreachable(self, error: Exception) -> ModelError:
        cause = error.reason if isinstance(error, URLError) else error
        is_late = isinstance(cause, TimeoutError)
        said = "no answer in time" if is_late else self._redacted(_words(cause))
        what = "answers nonsense" if isinstance(error, ValueError) else "cannot be reached"
        return ModelError(
            f"{self._flag}: {what} ({said}).",
            f"Start the server, or check the address. {_KEPT_SO_FAR}",
        )

    def _shown(self, data: bytes) -> str:
        text = " ".join(self._redacted(data.decode("utf-8", "replace")).split())
        return visible(text)[:_SHOWN].rstrip(".") or "nothing"

    def _redacted(self, text: str) -> str:
        if not self._key:
            return text
        return text.replace(self._key, REDACTED).replace(quote(self._key, safe=""), REDACTED)


class _NoRedirection(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: the answer itself becomes the error."""


def _read(response: Any) -> bytes:
    """Read a body that neither is endless nor comes a byte a minute."""
    until, data = time.monotonic() + _REPLY_SECONDS, b""
    while part := response.read1(1 << 16):
        data += part
        if len(data) > _MOST_BYTES:
            raise ValueError(f"its answer is larger than {_MOST_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise TimeoutError
    return data


def _choices(data: bytes) -> list[Any]:
    """Return the choices of a chat completion, [] if it is none."""
    try:
        found = json.loads(data)["choices"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _words(cause: Any) -> str:
    return reason_of(cause) if isinstance(cause, BaseException) else str(cause)


def _checked_url(text: str) -> str:
    wanted = "Write it as http://HOST:PORT/v1 or https://HOST/v1."
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not re.fullmatch(r"[!-~]+", text):
        raise ConfigError("--judge-url: is no address of a server.", wanted)
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "--judge-url: holds more than an address; a key does not belong there.",
            f"{wanted} A key goes into the environment: {KEY_VARIABLE}.",
        )
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path = f"{path or '/v1'}{_PATH}"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(
            f"{KEY_VARIABLE}: holds characters that no key has.", "Set it to the key alone."
        )
    return key
