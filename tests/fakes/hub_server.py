"""A stand-in of the Hugging Face Hub on 127.0.0.1: models, revisions, files, scripted faults."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

# What the real Hub sends for each fault: status and headers.
FAULTS: dict[str, tuple[int, dict[str, str]]] = {
    "gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}),
    "bad_token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "forbidden": (403, {"X-Error-Message": "Missing permissions"}),
    "rate_limited": (429, {}),
    "broken": (500, {}),
    "unavailable": (503, {}),
}


@dataclass
class FakeModel:
    """A model on the stand-in: file names to content, at one commit."""

    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)

    @property
    def sha(self) -> str:
        """Commit hash: follows from the content."""
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


@dataclass
class HubServer:
    """Serve models until the `with` block ends.

    Attributes:
        fault: a key of `FAULTS`, or "cut" (the connection ends after the headers), for requests
            whose path contains `fault_on`.
        requests: (method, path) in the order of arrival.
    """

    models: dict[str, FakeModel] = field(default_factory=dict)
    fault: str = ""
    fault_on: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def add_model(self, repo_id: str, folder: Path, **extra: bytes) -> FakeModel:
        """Serve the files of a folder, and more by name."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.models[repo_id] = FakeModel({**files, **extra})
        return self.models[repo_id]

    @property
    def url(self) -> str:
        """The address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append((self.command, path))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        faulty = self.hub.fault and self.hub.fault_on in path
        if faulty and self.hub.fault != "cut":
            status, headers = FAULTS[self.hub.fault]
            return self._send(status, b"{}", headers, with_body)
        if path.startswith("/moved/"):
            path = path.removeprefix("/moved")
        status, body, headers = self._route(path)
        cut = bool(faulty) and with_body
        return self._send(status, body, headers, with_body, cut)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        with_body: bool,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif with_body:
            self.wfile.write(body)

    def _route(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        for repo_id, model in self.hub.models.items():
            for prefix, serve in (
                (f"/api/models/{repo_id}/revision/", self._info),
                (f"/api/models/{repo_id}/tree/", self._tree),
                (f"/{repo_id}/resolve/", self._file),
            ):
                if path.startswith(prefix):
                    revision, _, name = path.removeprefix(prefix).partition("/")
                    if revision not in (*model.branches, model.sha):
                        return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
                    return serve(repo_id, model, name)
            if path == f"/api/models/{repo_id}":
                return self._info(repo_id, model, "")
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    def _info(self, repo_id: str, model: FakeModel, _: str) -> tuple[int, bytes, dict[str, str]]:
        siblings = [{"rfilename": n, "size": len(c)} for n, c in model.files.items()]
        info = {"id": repo_id, "modelId": repo_id, "sha": model.sha, "siblings": siblings}
        return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}

    def _tree(self, _: str, model: FakeModel, __: str) -> tuple[int, bytes, dict[str, str]]:
        entries = [
            {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
            for n, c in model.files.items()
        ]
        return 200, json.dumps(entries).encode(), {"Content-Type": "application/json"}

    def _file(self, repo_id: str, model: FakeModel, name: str) -> tuple[int, bytes, dict[str, str]]:
        head = {"X-Repo-Commit": model.sha}
        if name not in model.files:
            return 404, b"", {**head, "X-Error-Code": "EntryNotFound"}
        content = model.files[name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        if name.endswith(".safetensors") and not self.path.startswith("/moved/"):
            # Large files are elsewhere, as on the Hub: a redirect with the facts in its headers.
            head["Location"] = f"/moved/{repo_id}/resolve/{model.sha}/{name}"
            head["X-Linked-Etag"], head["X-Linked-Size"] = etag, str(len(content))
            return 302, b"", head
        return 200, content, {**head, "ETag": etag}
