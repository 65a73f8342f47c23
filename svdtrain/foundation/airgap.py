"""privacy=airgapped: Python opens no connection that leaves this machine, in this process and in those it starts.

What is closed stays closed: an audit hook cannot be taken back. Native code with sockets of its own (NCCL, gloo, W&B's
service) does not pass here.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import SystemFault

if TYPE_CHECKING:
    from types import FrameType

VARIABLE = "SVDTRAIN_AIRGAPPED"
"""Processes that are started later read it when they import svdtrain."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "offline",
}
"""What makes libraries not even try."""
LOCAL_FAMILIES = {getattr(socket, name, None) for name in ("AF_UNIX", "AF_NETLINK")}
RESOLVING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
SENDING = {"socket.connect", "socket.sendto", "socket.sendmsg"}

_closed: list[bool] = []
_refusals: list[SystemFault] = []


def close_network() -> None:
    """Refuse every address but this machine's own from now on, and tell the libraries that there is no network."""
    os.environ.update(OFFLINE)
    if not _closed:
        _closed.append(True)
        os.environ[VARIABLE] = "1"
        sys.addaudithook(_hook)


def refusal() -> SystemFault | None:
    """The first connection that was refused here, also when the library that tried went on without."""
    return _refusals[0] if _refusals else None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in RESOLVING:
        host = arguments[0]
    elif event in SENDING:
        opened, address = arguments
        if opened.family in LOCAL_FAMILIES or address is None:  # None: of a socket that is connected
            return
        host = address[0] if isinstance(address, tuple) and address else address
    else:
        return
    if not _is_here(host):
        fault = SystemFault(
            f"privacy=airgapped: {_caller()} wants to reach {_shown(host)}",
            "take what it needs from this machine, or privacy=standard",
        )
        _refusals.append(fault)
        raise fault


def _is_here(host: object) -> bool:
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost", "localhost.localdomain"):
        return True
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _shown(host: object) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)


def _caller() -> str:
    """The module that is at work: the innermost one that is not Python's own."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in sys.stdlib_module_names:
            return name
        frame = frame.f_back
    return "Python"
