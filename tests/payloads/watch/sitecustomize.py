"""Python imports this at the start of every process of a payload test: what must not happen is written down.

AUDIT_LOG: where to. AUDIT_ROOTS: the folders in which files may be made, changed or removed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LOG, ROOTS = os.environ.get("AUDIT_LOG", ""), os.environ.get("AUDIT_ROOTS", "").split(os.pathsep)
OWN_CHILD = ("-m", "svdtrain.data.isolation")
LOOKED_FOR = ("ffmpeg", "-v", "quiet")
"""What scenedetect runs when it is imported, to know whether there is one."""
RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
RESOLVING = ("socket.getaddrinfo", "socket.gethostbyname")
CHANGING = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
}
"""Event -> how many of its first arguments are paths."""
FREE = ("/dev/", "/proc/self/", "pipe:", "socket:")


def _foreign(path: object) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    real = os.path.realpath(os.fsdecode(path))
    return not real.startswith((*ROOTS, *FREE)) and not os.fsdecode(path).startswith(FREE)


def _pickled() -> str:
    """The module that unpickles: only messages between this program's own processes may be."""
    frame = sys._getframe(2)
    while frame and frame.f_globals.get("__name__", "") in ("pickle", "_pickle", "sitecustomize"):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "") if frame else ""


def _fault(event: str, arguments: tuple[Any, ...]) -> str:
    if event in RUNNING:
        return str(arguments[:2])
    if event == "subprocess.Popen":
        words = tuple(arguments[1])
        own = words[0] == sys.executable and words[1:3] == OWN_CHILD
        return "" if own or words == LOOKED_FOR else str(words)
    if event in RESOLVING or event in ("socket.connect", "socket.sendto"):
        address = arguments[0] if event in RESOLVING else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        local = host in (None, "", "localhost", "127.0.0.1", "::1") or (event == "socket.connect" and host is address)
        return "" if local else str(address)
    if event == "pickle.find_class":
        module = _pickled()
        return (
            "" if module.startswith(("multiprocessing.", "torch.multiprocessing")) else f"{arguments[1:]} by {module}"
        )
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in (mode or "") for letter in "wax+") or (not mode and flags & (os.O_WRONLY | os.O_RDWR))
        return f"{path} {mode}" if writes and _foreign(path) else ""
    changed = [path for path in arguments[: CHANGING.get(event, 0)] if _foreign(path)]
    return str(changed) if changed else ""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in RUNNING or event in RESOLVING or event in CHANGING or event in WATCHED:
        fault = _fault(event, arguments)
        if fault:
            line = f"{event} {fault}".replace("\n", " ") + "\n"
            file = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, line.encode(errors="replace"))
            os.close(file)


WATCHED = {"subprocess.Popen", "socket.connect", "socket.sendto", "pickle.find_class", "open"}
if LOG:
    ROOTS.append(LOG)
    sys.addaudithook(_hook)
