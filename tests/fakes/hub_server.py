"""A stand-in of the Hugging Face Hub on 127.0.0.1: models, datasets, files, scripted faults.

Takes uploads, too, all of them as files of the commit itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
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
    "odd": (418, {}),
    "echo": (403, {}),
}


LARGE = (".safetensors", ".parquet", ".gz")
"""Kinds of files that the Hub keeps elsewhere, with a sha256."""


@dataclass
class FakeModel:
    """A model or dataset on the stand-in: file names to content, at one commit.

    Attributes:
        card: what the card of a dataset says, such as its configs.
        others: what other branches or older commits hold, by name.
        about: more keys of what is answered to a search, and to a question about it.
    """

    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)
    private: bool = False
    card: dict[str, Any] = field(default_factory=dict)
    others: dict[str, FakeModel] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def at(self, revision: str) -> FakeModel | None:
        """Return what a branch or commit holds."""
        if revision in (*self.branches, self.sha):
            return self
        found = (other for name, other in self.others.items() if revision in (name, other.sha))
        return next(found, None)

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
        damaged: names of files of which the last byte arrives wrong.
        requests: (method, path) in the order of arrival.
        sent_bytes: of all bodies together.
        asked: the query of each request, in the same order.
    """

    models: dict[str, FakeModel] = field(default_factory=dict)
    datasets: dict[str, FakeModel] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    fault: str = ""
    fault_on: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    sent_bytes: int = 0

    def add_model(self, repo_id: str, folder: Path, **extra: bytes) -> FakeModel:
        """Serve the files of a folder, and more by name."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.models[repo_id] = FakeModel({**files, **extra})
        return self.models[repo_id]

    def add_dataset(self, repo_id: str, files: dict[str, bytes], **card: Any) -> FakeModel:
        """Serve a dataset."""
        self.datasets[repo_id] = FakeModel(files, card=card)
        return self.datasets[repo_id]

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

    def do_POST(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(unquote(urlparse(self.path).query))
        self.hub.requests.append((self.command, path))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        faulty = self.hub.fault and self.hub.fault_on in path
        if faulty and self.hub.fault != "cut":
            status, headers = FAULTS[self.hub.fault]
            if self.hub.fault == "echo":
                headers = {"X-Error-Message": f"Not for {self.headers.get('Authorization', '')}"}
            return self._send(status, b"{}", headers, with_body)
        if path.startswith("/moved/"):
            path = path.removeprefix("/moved")
        route = self._take if self.command == "POST" else self._route
        status, body, headers = route(path)
        if status == 200:
            status, body, headers = self._ranged(body, headers)
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
            self.hub.sent_bytes += len(body)

    def _ranged(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Answer a request for a part of a file, as `Range: bytes=0-99`."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return 200, body, headers
        first, last = int(wanted[1]), min(int(wanted[2]), len(body) - 1)
        place = {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
        return 206, body[first : last + 1], {**headers, **place}

    def _take(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Make a repository, say how files are to be sent, and take a commit."""
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer: dict[str, Any] = {}
        if path == "/api/repos/create":
            asked = json.loads(sent)
            repo_id = f"{asked.get('organization', 'ann')}/{asked['name']}"
            if repo_id in self.hub.models:
                return 409, json.dumps({"url": f"{self.hub.url}/{repo_id}"}).encode(), {}
            self.hub.models[repo_id] = FakeModel(
                {}, private=asked.get("visibility") == "private" or bool(asked.get("private"))
            )
            answer = {"url": f"{self.hub.url}/{repo_id}"}
        elif "/preupload/" in path:
            files = [one["path"] for one in json.loads(sent)["files"]]
            answer = {
                "files": [
                    {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for name in files
                ]
            }
        elif "/commit/" in path:
            repo_id = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.models[repo_id].files[line["value"]["path"]] = content
            sha = self.hub.models[repo_id].sha
            answer = {"commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"}
        return 200, json.dumps(answer).encode(), {"Content-Type": "application/json"}

    def _route(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if path == "/api/whoami-v2":
            return 200, b'{"name": "ann", "type": "user"}', {"Content-Type": "application/json"}
        if path == "/api/datasets":
            return self._search(self.hub.datasets)
        if path == "/api/models":
            return self._search(self.hub.models)
        repos = [("", "models", self.hub.models), ("datasets/", "datasets", self.hub.datasets)]
        for pages, kind, found in repos:
            for repo_id, model in found.items():
                for prefix, serve in (
                    (f"/api/{kind}/{repo_id}/revision/", self._info),
                    (f"/api/{kind}/{repo_id}/tree/", self._tree),
                    (f"/{pages}{repo_id}/resolve/", self._file),
                ):
                    if path.startswith(prefix):
                        return self._serve(model, path.removeprefix(prefix), pages + repo_id, serve)
                if path == f"/api/{kind}/{repo_id}":
                    return self._info(repo_id, model, "")
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    def _serve(
        self, model: FakeModel, rest: str, repo_id: str, serve: Any
    ) -> tuple[int, bytes, dict[str, str]]:
        """Tell the revision, which may hold slashes, from the name of the file."""
        parts = rest.split("/")
        for count in range(len(parts), 0, -1):
            found = model.at("/".join(parts[:count]))
            if found is not None:
                return serve(repo_id, found, "/".join(parts[count:]))
        return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}

    def _search(self, repos: dict[str, FakeModel]) -> tuple[int, bytes, dict[str, str]]:
        entries = [{"id": name, **found.about} for name, found in repos.items()]
        return 200, json.dumps(entries).encode(), {"Content-Type": "application/json"}

    def _info(self, repo_id: str, model: FakeModel, _: str) -> tuple[int, bytes, dict[str, str]]:
        siblings = [
            {"rfilename": n, "size": len(c), **({"lfs": _lfs(c)} if n.endswith(LARGE) else {})}
            for n, c in model.files.items()
        ]
        info = {"id": repo_id, "modelId": repo_id, "sha": model.sha, "siblings": siblings}
        info["cardData"] = model.card
        info.update(model.about)
        info["private"] = model.private
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
        is_large = name.endswith(LARGE)
        digest = hashlib.sha256(content) if is_large else hashlib.sha1(content)
        etag = f'"{digest.hexdigest()}"'
        if is_large and not self.path.startswith("/moved/"):
            # Large files are elsewhere, as on the Hub: a redirect with the facts in its headers.
            head["Location"] = f"/moved/{repo_id}/resolve/{model.sha}/{name}"
            head["X-Linked-Etag"], head["X-Linked-Size"] = etag, str(len(content))
            return 302, b"", head
        if name in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return 200, content, {**head, "ETag": etag}


def _lfs(content: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"sha256": sha256, "size": len(content), "pointerSize": 130}
