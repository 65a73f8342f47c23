"""A web server on the loopback that fails when told to, and as much of the Hub as the stream asks of it."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "c0ffee" + "0" * 34


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes) from the loopback, with ranges and ETags; and fails when told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.hits: list[tuple[str, str]] = []
        """(path, range asked for)."""
        self.headers: list[dict[str, str]] = []
        self.break_after: list[int] = []
        """So many bytes of the next answers, then the connection ends."""
        self.statuses: list[int] = []
        """Of the next answers."""
        self.ranges = True
        self.redirects: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, folder: Path, under: str = "/") -> None:
        """All files of a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[under + path.relative_to(folder).as_posix()] = path.read_bytes()

    def fetched(self) -> list[str]:
        """Paths of whole files and rests, without the questions for the first byte."""
        return [path for path, asked in self.hits if asked != "bytes=0-0"]


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, asked = self.path.partition("?")[0], self.headers.get("Range", "")
        self.server.hits.append((path, asked))
        self.server.headers.append(dict(self.headers))
        data = self.server.files.get(path)
        status = 404 if data is None else 200
        if self.server.statuses and asked != "bytes=0-0":
            status = self.server.statuses.pop(0)
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.end_headers()
            return
        if status != 200 or data is None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        if self.headers.get("If-Match", tag) != tag:
            self.send_response(412)
            self.end_headers()
            return
        start, part = 0, data
        if asked and self.server.ranges:
            begin, end = asked.removeprefix("bytes=").split("-")
            start = int(begin)
            part = data[start : int(end) + 1 if end else None]
        self.send_response(206 if part is not data else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(part)))
        if part is not data:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        if self.server.break_after and asked != "bytes=0-0":
            part = part[: self.server.break_after.pop(0)]
        self.wfile.write(part)

    do_POST = do_GET


def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of the Hub as is asked of it."""
    from huggingface_hub import constants, hf_api

    endpoint = server.url
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hf_api.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    info = {"_id": "1", "id": "org/name", "sha": COMMIT, "siblings": [], "private": False, "downloads": 0, "likes": 0}
    server.files["/api/datasets/org/name/revision/main"] = json.dumps(info | {"tags": []}).encode()
    inside = f"/datasets/org/name/resolve/{COMMIT}/"
    tree: list[dict[str, Any]] = []
    for path, data in list(server.files.items()):
        if path.startswith(inside):
            entry: dict[str, Any] = {"type": "file", "path": path.removeprefix(inside), "size": len(data), "oid": "1"}
            if path.endswith(".tar"):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
                server.files[f"/cdn/{digest}"] = data
                server.redirects[path] = f"{server.url}/cdn/{digest}"
            tree.append(entry)
    server.files[f"/api/datasets/org/name/tree/{COMMIT}"] = json.dumps(tree).encode()
