"""As much of the Hugging Face Hub as an upload asks of it, on the loopback: it keeps what it gets, and refuses when told to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGE = (".safetensors", ".mp4", ".png")
FIRST_COMMIT = "f" * 40
Answer = tuple[int, Any, dict[str, str]]
"""Status, JSON, headers."""
OK: Answer = (200, {}, {})


@dataclass
class Repository:
    """A model repository: branches of files."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


class Hub(ThreadingHTTPServer):
    """The Hub and its storage. `refusals`: method and path (a pattern) -> answers to give before the right one."""

    def __init__(self, content_store: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.refusals: dict[str, list[Answer]] = {}
        self.ignored: set[str] = set()
        self.card_warnings: list[str] = []
        self.content_store = content_store
        """Of Xet: where hf_xet puts what is uploaded by it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def lines(self) -> list[str]:
        return [one.line for one in self.asked]

    def answer(self, asked: Asked) -> Answer:
        for pattern, answers in self.refusals.items():
            if answers and re.fullmatch(pattern, asked.line):
                return answers.pop(0)
        for pattern, method in ROUTES.items():
            if match := re.fullmatch(pattern, asked.line):
                return method(self, asked, *(unquote(part) for part in match.groups()))
        return 500, {"error": f"nobody should ask for {asked.line}"}, {}

    def model_info(self, _asked: Asked, repo: str) -> Answer:
        if repo not in self.repositories:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        return 200, {"id": repo, "private": self.repositories[repo].private, "tags": [], "siblings": []}, {}

    def create(self, asked: Asked) -> Answer:
        repo = f"{asked.json['organization']}/{asked.json['name']}"
        self.repositories[repo] = Repository(asked.json["visibility"] == "private")
        return 200, {"url": f"{self.url}/{repo}"}, {}

    def validate(self, _asked: Asked) -> Answer:
        return 200, {"errors": [], "warnings": [{"message": one} for one in self.card_warnings]}, {}

    def branch(self, _asked: Asked, repo: str, branch: str) -> Answer:
        self.repositories[repo].branches[branch] = dict(self.repositories[repo].branches["main"])
        return OK

    def modes(self, asked: Asked, repo: str, branch: str) -> Answer:
        if branch not in self.repositories[repo].branches:
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                "shouldIgnore": one["path"] in self.ignored,
            }
            for one in asked.json["files"]
        ]
        return 200, {"files": files}, {}

    def batch(self, asked: Asked, _repo: str) -> Answer:
        def actions(oid: str) -> dict[str, Any]:
            key = "X-Amz-Signature=secret"
            return {"upload": {"href": f"{self.url}/storage/{oid}?{key}"}, "verify": {"href": f"{self.url}/verify"}}

        objects = [{**one, "actions": actions(one["oid"])} for one in asked.json["objects"]]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def store(self, asked: Asked, oid: str) -> Answer:
        assert hashlib.sha256(asked.body).hexdigest() == oid
        self.storage[oid] = asked.body
        return OK

    def verify(self, asked: Asked) -> Answer:
        assert len(self.storage[asked.json["oid"]]) == asked.json["size"]
        return OK

    def xet_token(self, _asked: Asked, _repo: str, _branch: str) -> Answer:
        expires = int(time.time()) + 3600
        return 200, {"casUrl": f"local://{self.content_store}", "accessToken": "xet", "exp": expires}, {}

    def commit(self, asked: Asked, repo: str, branch: str) -> Answer:
        repository = self.repositories[repo]
        files = repository.branches[branch]
        for line in map(json.loads, asked.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.storage.get(str(value["oid"]), b"went by Xet")
        oid = hashlib.sha1(asked.body).hexdigest()
        repository.commits[oid] = dict(files)
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None}, {}

    def paths(self, asked: Asked, repo: str, revision: str) -> Answer:
        files = self.repositories[repo].commits[revision]
        names = [name for name in parse_qs(asked.body.decode())["paths"] if name in files]
        large = {one["path"]: one["size"] for one in self.committed() if "size" in one}
        rows = [{"type": "file", "path": n, "size": large.get(n, len(files[n])), "oid": "1"} for n in names]
        return 200, rows, {}

    def committed(self) -> list[dict[str, Any]]:
        """What the last commit says of its files."""
        body = next((one.body for one in reversed(self.asked) if "/commit/" in one.path), b"")
        return [json.loads(line)["value"] for line in body.splitlines()]


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES: dict[str, Callable[..., Answer]] = {
    rf"GET /api/models/{REPO}": Hub.model_info,
    r"POST /api/repos/create": Hub.create,
    r"POST /api/validate-yaml": Hub.validate,
    rf"POST /api/models/{REPO}/branch/([^/]+)": Hub.branch,
    rf"POST /api/models/{REPO}/preupload/([^/]+)": Hub.modes,
    rf"POST /{REPO}\.git/info/lfs/objects/batch": Hub.batch,
    r"PUT /storage/(\w+)\?.*": Hub.store,
    r"POST /verify": Hub.verify,
    rf"GET /api/models/{REPO}/xet-write-token/([^/]+)": Hub.xet_token,
    rf"POST /api/models/{REPO}/commit/([^/]+)": Hub.commit,
    rf"POST /api/models/{REPO}/paths-info/([^/]+)": Hub.paths,
}


class Handler(BaseHTTPRequestHandler):
    server: Hub  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.body())
        self.server.asked.append(asked)
        status, content, headers = self.server.answer(asked)
        if status == 0:  # no answer at all
            self.close_connection = True
            return
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_CONNECT = do_GET
