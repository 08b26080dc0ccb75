"""A stand-in of a server that speaks OpenAI's chat completions, on 127.0.0.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], "str | tuple[int, dict[str, str], bytes]"]


@dataclass
class ChatServer:
    """Answer until the `with` block ends.

    Attributes:
        answer: from what is asked to a reply, or to status, headers and body.
        models: what GET /models lists; None: there is no such list.
        asked: what came in: path, headers and the JSON of each request.
    """

    answer: Answer
    models: tuple[str, ...] | None = ("big",)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                content = json.loads(self.rfile.read(length))
                chat.asked.append((self.path, dict(self.headers), content))
                found = chat.answer(content["messages"][-1]["content"])
                if isinstance(found, str):
                    message = {"role": "assistant", "content": found}
                    body = json.dumps({"choices": [{"message": message}]}).encode()
                    found = 200, {}, body
                status, headers, body = found
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                is_list = self.path == "/v1/models" and chat.models is not None
                body = json.dumps({"data": [{"id": one} for one in chat.models or ()]}).encode()
                self.send_response(200 if is_list else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
