"""Files that would run code, if anything unpickled, imported, unpacked or interpolated them. Each would make a marker."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Evil:
    """Unpickled, it makes its marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def pickled(marker: Path) -> bytes:
    return pickle.dumps({"state_dict": Evil(marker)})


def torch_file(marker: Path) -> bytes:
    """As torch.save writes it: a zip with a pickle in it."""
    buffer = io.BytesIO()
    torch.save({"weight": Evil(marker)}, buffer)
    return buffer.getvalue()


def object_array(marker: Path) -> bytes:
    """An npy file of Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def object_archive(marker: Path) -> bytes:
    """The same in an npz."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", object_array(marker))
    return buffer.getvalue()


def module(marker: Path) -> str:
    """Python that makes the marker when imported, and has whatever class is asked for."""
    return f"open({str(marker)!r}, 'w')\ndef __getattr__(name): return type(name, (), {{}})\n"


def safetensors(tensors: dict[str, list[int]], metadata: dict[str, str] | None = None) -> bytes:
    """A file of zeros by name and shape, whatever the names."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, shape in tensors.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(offset)


def tar(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> None:
    """A tar of these files, and of members without content: links, devices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for other in others:
            archive.addfile(other)


def link(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = 1, 8
    return info


def sparse_tar(path: Path) -> None:
    """An old GNU sparse member: 512 bytes that say they are 8 GiB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = tarfile.TarInfo("clip.mp4")
    info.size = 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:398], header[398:410] = b"00000000000\0", b"00000001000\0"
    header[483:495] = b"\x80" + (8 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    path.write_bytes(bytes(header[:512]) + bytes(512) + bytes(1024))


def bomb(path: Path) -> None:
    """A tar that is a gzip of 256 MB of zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(256 << 20), 1))


def postscript(marker: Path) -> bytes:
    """A picture that Pillow hands to Ghostscript, which may run programs."""
    program = f"(%pipe%touch {marker}) (w) file\n".encode()
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n" + program + b"showpage\n"


def deep_json() -> bytes:
    return b'{"caption": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
