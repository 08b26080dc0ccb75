"""OpenAI's API over HTTP: mlx-lm's handler behind the checks of a request, on one address.

What happens is told as messages, the first when it answers:

    {"event": "ready", "url": ..., "models": [...], "base": ..., "curl": ..., "notes": [...]}
    {"event": "request", "path": ..., "model": ..., "status": 200, "seconds": 1.2}
    {"event": "note", "text": ...}
"""

from __future__ import annotations

import errno
import io
import ipaddress
import json
import logging
import shlex
import socket
import socketserver
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from mlx_lm.server import APIHandler, get_system_fingerprint

from orpo_mlx.errors import ConfigError, TrainingError, describe, reason_of
from orpo_mlx.generation.context import ContextFull
from orpo_mlx.serving.adapter_switch import AdapterGenerator, AdapterProvider
from orpo_mlx.serving.request_check import (
    MOST_BYTES,
    PATHS,
    RequestRefused,
    read_request,
    require_known,
)
from orpo_mlx.serving.served_models import ServedModels

Say = Callable[[dict[str, Any]], None]


_OPEN = "other machines can ask it, and no key is asked for; without --host this machine alone can"


class OpenAIServer(ThreadingHTTPServer):
    """Listens on one address; answers once `serve_models` has given it what to answer with.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    generator: AdapterGenerator
    served: ServedModels
    fingerprint: str
    say: Say

    def __init__(self, host: str, port: int) -> None:
        try:
            info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = info[0]
            super().__init__(info[4][:2], OpenAIHandler)  # type: ignore[arg-type]
        except OSError as error:
            raise _cannot_listen(host, port, error) from error

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """The address of the API, as this machine reaches it."""
        host = str(self.server_name)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/v1"

    @property
    def is_open(self) -> bool:
        """Whether other machines reach it."""
        return not ipaddress.ip_address(str(self.server_name)).is_loopback

    def service_actions(self) -> None:
        """End when the thread that computes is gone, instead of refusing for ever."""
        if not self.generator.generation_available():
            raise TrainingError(
                "the thread that answers ended; see the lines above.", "Start the server again."
            )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line what a connection died of; one that was closed is nobody's error."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.say({"event": "note", "text": describe(error)})


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"--port {port}: something listens on {host}:{port} already.",
            "Give another port, such as --port 0 for any that is free, or end what listens there.",
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"--host {host}: is not an address of this machine ({reason_of(error)}).",
            "Leave it out to serve this machine alone, or give 0.0.0.0 to serve its network.",
        )
    return ConfigError(
        f"--port {port}: cannot be listened on ({reason_of(error)}).",
        "Give a port from 1024 on, such as --port 8080.",
    )


class OpenAIHandler(APIHandler):
    """One connection: mlx-lm's handler, which sees checked requests only."""

    server: OpenAIServer  # type: ignore[assignment]

    def __init__(self, connection: Any, address: Any, server: OpenAIServer) -> None:
        self._status = 0
        self._has_streamed = False
        super().__init__(
            server.generator, connection, address, server, system_fingerprint=server.fingerprint
        )

    def do_POST(self) -> None:
        started = time.monotonic()
        model = ""
        try:
            body = self._read()
            model = body["model"]
            content = json.dumps(body).encode()
            self.rfile = io.BytesIO(content)
            del self.headers["Content-Length"]
            self.headers["Content-Length"] = str(len(content))
            super().do_POST()
        except RequestRefused as refused:
            self._refuse(refused)
        except ConnectionError:
            self._status = 499  # the client went away; nginx's number
        except Exception as error:
            self._refuse(RequestRefused(describe(error), status=500))
        self.server.say({
            "event": "request", "path": self.path[:200], "model": model, "status": self._status,
            "seconds": round(time.monotonic() - started, 3),
        })  # fmt: skip

    def _read(self) -> dict[str, Any]:
        self._require_no_page()
        if self.path not in PATHS:
            raise _no_such_path(self.path)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise RequestRefused("the header Content-Length is missing", status=411)
        if int(length) > MOST_BYTES:
            raise RequestRefused(f"the body is longer than {MOST_BYTES} bytes", status=413)
        return read_request(self.path, self.rfile.read(int(length)), self.server.served)

    def _require_no_page(self) -> None:
        """Refuse pages of the web, by their origin and by names that were made to lead here."""
        origin, host = self.headers.get("Origin"), self.headers.get("Host")
        if (origin and not _is_here(origin)) or (
            host and not self.server.is_open and not _is_here(f"//{host}")
        ):
            raise RequestRefused("pages of the web are not let in", status=403)

    def _refuse(self, refused: RequestRefused) -> None:
        body = json.dumps(refused.as_json()).encode()
        if self._has_streamed:
            self._status = refused.status
            self.wfile.write(b"data: " + body + b"\n\n")
            return
        self._headers_buffer: list[bytes] = []
        self._answer(refused.as_json(), refused.status)

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        self._status = status
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _set_completion_headers(self, status_code: int = 200) -> None:
        """Turn what mlx-lm refuses into OpenAI's form: the reason is the exception at hand."""
        if status_code >= 400:
            reason = sys.exc_info()[1]
            status = 500 if isinstance(reason, RuntimeError) else 400  # its thread is gone
            if isinstance(reason, ContextFull):
                param = "prompt" if self.path == "/v1/completions" else "messages"
                raise RequestRefused(reason.message, param, "context_length_exceeded") from None
            text = str(reason or "the request cannot be answered")
            raise RequestRefused(text, status=status) from None
        self._status = status_code
        super()._set_completion_headers(status_code)

    def _set_stream_headers(self, status_code: int = 200) -> None:
        self._status, self._has_streamed = status_code, True
        super()._set_stream_headers(status_code)

    def do_GET(self) -> None:
        served, path = self.server.served, self.path.split("?")[0]
        try:
            self._require_no_page()
            if path == "/health":
                self._answer({"status": "ok"})
            elif path in ("/v1/models", "/v1/models/"):
                self._answer({"object": "list", "data": [self._model(n) for n in served.models]})
            elif path.startswith("/v1/models/"):
                name = unquote(path.removeprefix("/v1/models/"))
                require_known(name, served)
                self._answer(self._model(name))
            else:
                raise _no_such_path(path)
        except RequestRefused as refused:
            self._refuse(refused)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.created, "owned_by": "orpo-mlx"}

    def _set_cors_headers(self) -> None:
        """Say nothing: pages of the web have no business with a model on this machine."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing here: each request is told once, as a message."""


def _is_here(address: str) -> bool:
    """Return whether an address names this machine to itself."""
    try:
        name = urlsplit(address).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _no_such_path(path: str) -> RequestRefused:
    known = f"{', '.join(PATHS)}, /v1/models"
    return RequestRefused(f"{path[:200]}: is nothing here; there are: {known}", status=404)


def serve_models(server: OpenAIServer, served: ServedModels, say: Say) -> None:
    """Load what is served and answer until an interrupt.

    Args:
        server: bound already, so that a port in use is found before anything is loaded.
        served: found and checked.
        say: told of what happens, from several threads.

    Raises:
        OrpoError: weights cannot be loaded, or the thread that computes ended.
        KeyboardInterrupt: Ctrl-C; all answers are ended.
    """
    provider = AdapterProvider(served)
    with _logged(say):
        generator = AdapterGenerator(provider)
        try:
            provider.opened.wait()
            if provider.failure is not None:
                raise provider.failure
            server.generator, server.served, server.say = generator, served, say
            server.fingerprint = get_system_fingerprint()
            say(_ready(server))
            server.serve_forever()
        finally:
            generator.stop_and_join()
            server.server_close()


def _ready(server: OpenAIServer) -> dict[str, Any]:
    served = server.served
    return {
        "event": "ready",
        "url": server.url,
        "models": list(served.models),
        "base": served.base_name,
        "curl": curl_line(server.url, next(iter(served.models)), served.chats),
        "notes": [*served.notes, *([_OPEN] if server.is_open else [])],
    }


def curl_line(url: str, model: str, chats: bool) -> str:
    """Return a command that asks a served model something, as it can be pasted into a shell."""
    asked = {"messages": [{"role": "user", "content": "Hello"}]} if chats else {"prompt": "Hello"}
    place = f"{url}/chat/completions" if chats else f"{url}/completions"
    body = json.dumps({"model": model, **asked}, ensure_ascii=False)
    return shlex.join(["curl", place, "-H", "Content-Type: application/json", "-d", body])


class _LogLines(logging.Handler):
    """Tells warnings of mlx-lm's server, without their tracebacks."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say({"event": "note", "text": record.getMessage()})


@contextmanager
def _logged(say: Say) -> Iterator[None]:
    """Take the root logger's lines, where mlx-lm's server writes; it would add a handler itself."""
    handler = _LogLines(say)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
