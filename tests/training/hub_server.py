"""A stand-in for the Hugging Face hub: the part of its HTTP API that a push and a download use, on loopback.

Paths and fields are those that huggingface_hub 1.x and 2.x ask for with Xet switched off (HF_HUB_DISABLE_XET=1).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_this_test"


@dataclass
class Hub:
    """What the hub holds. files: of each repository. private: of each repository. commits: how many each got."""

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def environment(self, home: object) -> dict[str, str]:
        """Variables that point huggingface_hub here, with a cache of its own."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that serves until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Tests print enough."""

    def _answer(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if len(parts) == 5 and parts[2] == "resolve":
            repository, name = "/".join(parts[:2]), parts[4]
            if repository not in self.hub.files:
                return self._answer(404, headers={"X-Error-Code": "RepoNotFound"})
            content = self.hub.files[repository].get(name)
            if content is None:
                return self._answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40})
            etag = hashlib.sha256(content).hexdigest()
            return self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": "0" * 40})
        return self._answer(404)

    def do_PUT(self) -> None:
        self.hub.blobs[self.path.rsplit("/", 1)[1]] = self._body()
        self._answer(200)

    def do_POST(self) -> None:
        body, hub = self._body(), self.hub
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "repos"]:
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            if repository in hub.files:
                return self._answer(409, {"url": f"{hub.address}/{repository}"})
            hidden = asked.get("private") or asked.get("visibility") == "private"  # by the release
            hub.files[repository], hub.private[repository] = {}, bool(hidden)
            return self._answer(200, {"url": f"{hub.address}/{repository}"})
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self._answer(200, {"transfer": "basic", "objects": [self._upload(o) for o in json.loads(body)["objects"]]})
        if parts == ["api", "validate-yaml"]:  # the card's head, before it is committed
            return self._answer(200, {"errors": [], "warnings": []})
        repository = "/".join(parts[2:4])
        if parts[4] == "preupload":
            large = [(f["path"], f["path"].endswith(".safetensors")) for f in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "lfs" if big else "regular", "shouldIgnore": False} for p, big in large]
            return self._answer(200, {"files": modes})
        assert parts[4] == "commit", self.path
        for line in body.decode().splitlines():
            self._commit(repository, json.loads(line))
        hub.commits[repository] = hub.commits.get(repository, 0) + 1
        return self._answer(200, {"commitUrl": f"{hub.address}/{repository}/commit/{'0' * 40}", "commitOid": "0" * 40})

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {**asked, "actions": {"upload": {"href": f"{self.hub.address}/upload/{asked['oid']}"}}}

    def _commit(self, repository: str, entry: dict[str, Any]) -> None:
        value = entry["value"]
        if entry["key"] == "file":
            self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            self.hub.files[repository][value["path"]] = self.hub.blobs[value["oid"]]
