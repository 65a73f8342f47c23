"""A `python` whose `-m svdtrain` is a fork of a process that has imported everything, which takes most of a command's time."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from svdtrain.selftest.children import Conditions, Nursery

ASK = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:3] != ["-m", "svdtrain"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as asked, asked.makefile("rw") as line:
    asked.connect({address!r})
    line.write(json.dumps([sys.argv[3:], os.getcwd(), dict(os.environ)]) + "\\n")
    line.flush()
    code, said, errors = json.loads(line.readline())
sys.stdout.write(said)
sys.stderr.write(errors)
sys.exit(code if code >= 0 else 128 - code)
"""


class WarmPython:
    """Stands in `folder`/bin until it is closed; one command at a time. The folder's path is short: it holds a socket."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self._nursery = Nursery(folder / "said")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / "ask"))
        self._socket.listen()
        python = self.programs / "python"
        python.write_text(ASK.format(python=sys.executable, address=str(folder / "ask")))
        python.chmod(0o755)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                asked, _ = self._socket.accept()
                with asked, asked.makefile("rw") as line:
                    words, folder, environment = json.loads(line.readline())
                    child = self._nursery.start(words, Path(folder), Conditions(environment))
                    line.write(json.dumps([child.wait(600), *child.said()]) + "\n")

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        self._nursery.close()


def path_with(programs: Path) -> str:
    """PATH where these programs are found first."""
    return os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
