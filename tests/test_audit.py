"""The audit of the pinned packages: what is known fails, nothing known passes, and no database is one line."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from scripts import audit

ROOT = Path(__file__).parents[1]


class Database(BaseHTTPRequestHandler):
    answer: ClassVar[object] = {}
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Database)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    (tmp_path / "constraints.txt").write_text("# a comment\nnumpy==2.0\nopencv-python-headless==4.1.0.9\n")
    return tmp_path / "constraints.txt"


@pytest.mark.parametrize(
    ("second", "code", "said"),
    [
        ({}, 0, "audit: nothing is known against these 2 packages\n"),
        ({"vulns": [{"id": "GHSA-1"}, {"id": "CVE-2"}]}, 1, "opencv-python-headless==4.1.0.9: GHSA-1, CVE-2\n"),
    ],
)
def test_what_is_known_fails(
    second: dict[str, Any], code: int, said: str, database: str, pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Database.answer = {"results": [{}, second]}
    assert audit.main(pins, database) == code
    assert capsys.readouterr().out == said
    first = Database.asked[-1]["queries"][0]
    assert first == {"package": {"name": "numpy", "ecosystem": "PyPI"}, "version": "2.0"}


@pytest.mark.parametrize("answer", [{}, {"results": []}, []])
def test_an_answer_that_is_none_is_said(
    answer: object, database: str, pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Database.answer = answer
    assert audit.main(pins, database) == 0
    assert capsys.readouterr().out.startswith("audit: not done, ")


def test_no_database_is_one_line_in_time(
    pins: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (f"127.0.0.1:{silent.getsockname()[1]}", "127.0.0.1:9"):
            assert audit.main(pins, f"http://{address}") == 0
            said = capsys.readouterr().out
            assert said.startswith(f"audit: not done, http://{address} cannot be reached")
            assert said.count("\n") == 1


def test_the_lock_holds_what_is_pinned() -> None:
    """python -m scripts.lock writes it."""
    pins = audit.pinned((ROOT / "constraints.txt").read_text())
    text = (ROOT / "requirements.lock").read_text()
    rows = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE)
    assert {name: version for name, version, _ in rows} == pins
