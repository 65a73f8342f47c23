"""privacy=airgapped: what Python may not reach, what it may, in which processes, and how the run ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, save_tiny_dataset

ELSEWHERE = "192.0.2.1"
"""TEST-NET-1: nobody has it."""
REFUSED = {
    "connect": f"socket.socket().connect(('{ELSEWHERE}', 80))",
    "connect by IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "connect_ex": f"socket.socket().connect_ex(('{ELSEWHERE}', 80))",
    "a mapped address": f"socket.socket(socket.AF_INET6).connect(('::ffff:{ELSEWHERE}', 80))",
    "sendto": f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{ELSEWHERE}', 53))",
    "sendmsg": f"socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('{ELSEWHERE}', 53))",
    "getaddrinfo": "socket.getaddrinfo('example.org', 80)",
    "gethostbyname": "socket.gethostbyname('example.org')",
    "a host named like this one": "socket.getaddrinfo('localhost.example.org', 80)",
    "urllib": f"import urllib.request; urllib.request.urlopen('http://{ELSEWHERE}/')",
    "requests": f"import requests; requests.get('http://{ELSEWHERE}/')",
    "httpx": f"import httpx; httpx.get('http://{ELSEWHERE}/')",
    "asyncio": f"import asyncio; asyncio.run(asyncio.open_connection('{ELSEWHERE}', 80))",
    "another process": f"{{import_svdtrain}} socket.create_connection(('{ELSEWHERE}', 80))",
}
ALLOWED = """
    import socket, tempfile, os
    server = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(server.getsockname()).close()
    socket.create_connection(("localhost", server.getsockname()[1])).close()
    socket.getaddrinfo(None, 0), socket.gethostname()
    with tempfile.TemporaryDirectory() as folder:
        local = socket.socket(socket.AF_UNIX)
        local.bind(folder + "/s")
        local.listen()
        socket.socket(socket.AF_UNIX).connect(folder + "/s")
"""
CLOSED = "import socket\nfrom svdtrain.foundation import airgap\nairgap.close_network()\n"
WORKERS = """
import multiprocessing, socket, sys
from torch.utils.data import DataLoader
from svdtrain.foundation import airgap
from svdtrain.foundation.errors import SystemFault
import svdtrain.data.clip

class Places(list):
    __module__ = "places"

if __name__ == "__main__":
    airgap.close_network()
    import places
    try:
        list(DataLoader(places.Places(), num_workers=1, multiprocessing_context=sys.argv[1]))
    except SystemFault as error:
        print(error)
"""
PLACES = """
import socket, svdtrain
class Places:
    def __len__(self): return 1
    def __getitem__(self, index): socket.create_connection(("192.0.2.1", 80), timeout=5)
"""


def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(cwd or "")])} | environment
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=120)


def python(program: str, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("-c", textwrap.dedent(program), *words, cwd=cwd, **environment)


@pytest.mark.parametrize("name", REFUSED)
def test_another_machine_is_refused_by_name_and_caller(name: str) -> None:
    program = CLOSED + "try:\n    " + REFUSED[name].replace("{import_svdtrain}", "import svdtrain;")
    program += "\nexcept airgap.SystemFault as error:\n    print(error, '|', airgap.refusal() is error)"
    done = python(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("privacy=airgapped: ")
    assert done.stdout.endswith("| True\n")
    assert any(host in done.stdout for host in (ELSEWHERE, "example.org", "2001:db8::1"))
    assert {"urllib": "__main__", "requests": "urllib3.", "httpx": "httpcore."}.get(name, "") in done.stdout


def test_this_machine_is_allowed_and_libraries_are_told() -> None:
    told = "\nprint([os.environ[name] for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'WANDB_MODE')])"
    done = python(CLOSED + textwrap.dedent(ALLOWED) + told + "\nassert airgap.refusal() is None", WANDB_MODE="online")
    assert (done.returncode, done.stdout) == (0, "['1', '1', 'offline']\n"), done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_data_loader_are_closed(method: str, tmp_path: Path) -> None:
    (tmp_path / "places.py").write_text(PLACES)
    (tmp_path / "main.py").write_text(WORKERS)
    done = python("import runpy; runpy.run_path('main.py', run_name='__main__')", method, cwd=tmp_path)
    assert f"privacy=airgapped: places wants to reach {ELSEWHERE}" in done.stdout, done.stderr


def test_a_process_that_is_started_later_is_closed() -> None:
    inner = f"import svdtrain, socket; socket.socket().connect((\\'{ELSEWHERE}\\', 80))"
    done = python(CLOSED + f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{inner}'])")
    assert f"privacy=airgapped: __main__ wants to reach {ELSEWHERE}" in done.stderr


def test_standard_opens_what_is_asked_for() -> None:
    done = python(
        f"import socket, svdtrain.cli\ntry: socket.socket().connect(('{ELSEWHERE}', 80))\nexcept OSError: print(1)"
    )
    assert done.stdout == "1\n", done.stderr


SWALLOWING = """
def run(config, overrides):
    import socket
    try:
        socket.getaddrinfo("telemetry.example.org", 443)
    except Exception:
        pass
"""


def test_an_attempt_that_a_library_swallows_ends_the_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "swallowing.py").write_text(SWALLOWING)
    program = """
        import sys
        from svdtrain import cli
        cli.COMMANDS = (cli.Command("fit", "swallowing", "fit", "schema.FitConfig", "phones home", ()),)
        sys.argv[1:] = ["fit", "config=style_lora", "privacy=" + sys.argv[1]]
        sys.exit(cli.main(sys.argv[1:]))
    """
    done = python(program, "airgapped", cwd=tmp_path)
    line = "error: privacy=airgapped: swallowing wants to reach telemetry.example.org"
    assert (done.returncode, done.stderr.splitlines()[0]) == (5, line)
    assert python(program, "standard", cwd=tmp_path).returncode == 0


def test_a_fit_that_needs_the_network_ends_in_one_line(tmp_path: Path) -> None:
    save_tiny_svd(tmp_path / "model")
    words = fit_words(tmp_path / "model", tmp_path, f"data.source=http://{ELSEWHERE}/train-000000.tar")
    done = run("-m", "svdtrain", "fit", *words, "privacy=airgapped", cwd=tmp_path)
    assert done.returncode == 5
    error, hint = done.stderr.splitlines()
    assert error == f"error: privacy=airgapped: svdtrain.data.transports wants to reach {ELSEWHERE}"
    assert hint.startswith("hint: ")


def test_a_fit_on_what_is_here_needs_no_network(tmp_path: Path) -> None:
    save_tiny_svd(tmp_path / "model")
    save_tiny_dataset(tmp_path / "data")
    words = fit_words(tmp_path / "model", tmp_path / "data", "trainer.devices=2", "data.workers=1", "data.batch_size=1")
    words += ["privacy=airgapped", "run_dir=run", "logger=wandb", "logger.patience=240"]
    done = run("-m", "svdtrain", "fit", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
