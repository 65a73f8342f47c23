"""safetensors files without torch: read strictly, one tensor at a time, and written so that equal contents are equal bytes.

The format: 8 bytes of little-endian length, that many bytes of JSON {name: {dtype, shape, data_offsets}, "__metadata__":
{text: text}}, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import mmap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.foundation.errors import ModelError, shown
from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Array = np.ndarray[Any, np.dtype[Any]]
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Kinds of floating-point tensors; bf16 has no type in numpy and goes through the upper half of fp32."""
INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1"}
MOST_AXES = 8
DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "fp64": "F64"}
LONGEST_HEADER = 64 * 2**20
_PICKLES = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class Entry:
    """A tensor's place in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Container:
    """An open safetensors file; tensors are read when they are asked for, as fp32 (fp64 stays)."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError for a file that is torn, empty, a pickle, or says two things at once."""
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}", "check the name and its rights") from error
        header = self._header(size)
        self.metadata = self._texts(header.pop("__metadata__", {}))
        self.entries = {name: self._entry(name, value, size) for name, value in header.items()}
        end = self._first
        for name, entry in sorted(self.entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != end:
                raise self._torn(f"'{shown(name)}' does not begin where the tensor before it ends")
            end = entry.stop
        if end != size:
            raise self._torn(f"{size:,} bytes, its header speaks of {end:,}")

    def number(self, name: str) -> float:
        """A tensor of one number, of any kind: an alpha. Raises ModelError for another."""
        entry = self.entries[name]
        kind = NUMPY.get(entry.dtype) or INTEGERS.get(entry.dtype)
        if kind is None or math.prod(entry.shape) != 1:
            raise ModelError(
                f"{self.path}: '{shown(name)}' is {shown(entry.dtype)} {shown(list(entry.shape))}, and one number is wanted",
                "damaged",
            )
        if entry.dtype in NUMPY:
            return float(self.array(name).reshape(-1)[0])
        return float(np.frombuffer(self._bytes, kind, 1, entry.start)[0])

    def array(self, name: str) -> Array:
        """A tensor as a new fp32 array. Raises ModelError for one that is no floating-point tensor."""
        entry = self.entries[name]
        if entry.dtype not in NUMPY:
            raise ModelError(f"{self.path}: '{shown(name)}' is {shown(entry.dtype)}", f"read are {', '.join(NUMPY)}")
        flat: Array = np.frombuffer(self._bytes, NUMPY[entry.dtype], math.prod(entry.shape), entry.start)
        if entry.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.astype(np.float64 if entry.dtype == "F64" else np.float32).reshape(entry.shape)

    def _header(self, size: int) -> dict[str, Any]:
        length = int.from_bytes(self._bytes[:8], "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            if self._bytes[:4].startswith(_PICKLES):
                raise ModelError(
                    f"{self.path}: a pickle (.bin, .pt, .ckpt), which can run any code, is never read",
                    "ask its maker for safetensors, or convert it on a machine that you can throw away",
                )
            if size >= 8 and self._bytes[8:9] != b"{":
                raise self._torn("it does not begin as one")
            raise self._torn(f"{size:,} bytes" + (f", its header alone {length:,}" if size >= 8 else ""))
        self._first = 8 + length
        try:
            header = json.loads(self._bytes[8 : self._first], object_pairs_hook=self._unique)
        except (ValueError, RecursionError) as error:
            raise self._torn(f"its header is no JSON: {shown(str(error))}") from error
        if not isinstance(header, dict):
            raise self._torn("its header is no table")
        return header

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ModelError(f"{self.path}: '{shown(twice)}' stands in it twice", "the file is damaged or forged")
        return table

    def _texts(self, value: Any) -> dict[str, str]:  # noqa: ANN401
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise self._torn("its metadata is no table of texts")
        return value

    def _entry(self, name: str, value: Any, size: int) -> Entry:  # noqa: ANN401
        try:
            start, stop = (self._first + int(offset) for offset in value["data_offsets"])
            entry = Entry(str(value["dtype"]), tuple(int(n) for n in value["shape"]), start, stop)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise self._torn(f"what its header says of '{shown(name)}' cannot be read") from error
        if "/" in name or "\\" in name or ".." in name or not name.isprintable():
            raise ModelError(f"{self.path}: '{shown(name)}' is a path, no name of a tensor", "the file is forged")
        kind = NUMPY.get(entry.dtype) or INTEGERS.get(entry.dtype)
        width = int(kind[-1]) if kind else None
        wrong = width is not None and math.prod(entry.shape) * width != stop - start
        deep = len(entry.shape) > MOST_AXES or min(entry.shape, default=0) < 0
        if wrong or deep or not self._first <= start <= stop <= size:
            raise self._torn(f"{size:,} bytes; '{shown(name)}' {shown(list(entry.shape), 30)} is not whole")
        return entry

    def _torn(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: not a whole safetensors file ({what})", "copy, export or train it again")


def encoded(array: NDArray[Any], dtype: str) -> bytes:
    """An array's bytes in a container's dtype; rounded to nearest, ties to even."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, NUMPY[dtype]).tobytes()
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = np.isnan(np.asarray(array, np.float32))
    return np.where(nan, np.uint64(0x7FC0), rounded).astype("<u2").tobytes()


def write_container(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], dtype: str = "F32"
) -> None:
    """Write a whole file or none; names and metadata in order. `.alpha` and what has no axes stay fp32."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    parts: list[bytes] = []
    offset = 0
    for name in sorted(tensors, key=lambda name: (tensors[name].ndim > 0, name)):
        kind = dtype if tensors[name].ndim else "F32"
        most = {"F16": 65504.0, "BF16": 3.3895e38}.get(kind)
        if most and tensors[name].size and float(np.abs(tensors[name]).max()) > most:
            raise ModelError(
                f"{path}: '{name}' does not fit into {kind}", "dtype=bf16 has more range, dtype=fp32 all of it"
            )
        parts.append(encoded(tensors[name], kind))
        header[name] = {
            "dtype": kind,
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(parts[-1])],
        }
        offset += len(parts[-1])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    write_atomic(path, b"".join([len(text).to_bytes(8, "little"), text, *parts]))
