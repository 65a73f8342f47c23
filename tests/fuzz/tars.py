"""Bad tars, read as training reads them: listed, checked, and clips taken from them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from random import Random
from typing import Any

from svdtrain.data.bad_samples import BadSamplePolicy
from svdtrain.data.datamodule import ClipDataModule
from svdtrain.data.isolation import DecodeChild
from svdtrain.data.streaming import StreamingDataModule
from tests.fuzz.mutations import NUMBERS, TEXTS, damaged, noise, strange
from tests.fuzz.place import Answer, Place, asked
from tests.tiny_models import FRAMES, SIZE

BLOCK = tarfile.BLOCKSIZE
FIELDS = {
    **{"name": (0, 100), "mode": (100, 8), "uid": (108, 8), "size": (124, 12), "mtime": (136, 12), "chksum": (148, 8)},
    **{"typeflag": (156, 1), "linkname": (157, 100), "magic": (257, 8), "devmajor": (329, 8), "prefix": (345, 155)},
}
KINDS = b"0\x001234567LKSDVMNxgX\xffA"
PAX = (
    *(
        "path",
        "linkpath",
        "size",
        "mtime",
        "uid",
        "hdrcharset",
        "GNU.sparse.map",
        "GNU.sparse.major",
        "GNU.sparse.minor",
    ),
    *(
        "GNU.sparse.size",
        "GNU.sparse.realsize",
        "GNU.sparse.name",
        "GNU.sparse.numblocks",
        "GNU.sparse.offset",
        "comment",
    ),
)


class _Lent(DecodeChild):
    """A child that outlives who has borrowed it: to start one takes longer than an input."""

    def __init__(self, child: DecodeChild) -> None:
        self.child = child

    def _ask(self, data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        return self.child._ask(data, request)

    def close(self) -> None:
        """Not yet."""


class _Lending:
    lent: _Lent

    def _child(self) -> _Lent:
        return self.lent


class _Exact(_Lending, ClipDataModule):
    """data.order=exact."""


class _Streaming(_Lending, StreamingDataModule):
    """data.order=stream."""


def attempt(draw: Random, place: Place) -> Answer:
    """One bad tar."""
    good = (place.world / "dataset/train-000000.tar").read_bytes()
    folder = place.folder / "data"
    if draw.random() < 0.2:  # what a manifest vouches for
        place.folder.joinpath("dataset").mkdir()
        for name in ("manifest.json", "held_out-000000.tar", "train-000000.idx.jsonl", "held_out-000000.idx.jsonl"):
            place.write(f"data/{name}", (place.world / "dataset" / name).read_bytes())
    elif draw.random() < 0.5:
        place.write("data/held_out-000000.tar", (place.world / "dataset/held_out-000000.tar").read_bytes())
    place.write("data/train-000000.tar", draw.choice(_WAYS)(draw, good))
    return train_on(draw, place, str(folder))


def train_on(draw: Random, place: Place, source: str, **options: Any) -> Answer:  # noqa: ANN401
    """List, check, describe, and take two batches and a held-out clip."""
    place.names.append("data.source")
    kind = _Streaming if draw.random() < 0.3 else _Exact
    given: dict[str, Any] = {"frames": FRAMES, "height": SIZE, "width": SIZE, "fps": None, "motion_bucket": None}
    given |= {"captions": draw.random() < 0.5, "trigger": draw.choice(("", "sks")), "stills": draw.random() < 0.5}
    given |= {"bad": BadSamplePolicy(draw.random() < 0.3, 0.5), "verify": draw.random() < 0.3, **options}
    data = kind(source, batch_size=1, workers=0, seed=0, horizontal_flip=True, max_batches=2, deadline=5.0, **given)
    data.lent = _Lent(place.child)

    def use() -> None:
        data.check()
        data.describe()
        data.state_dict()
        list(data.train_dataloader())
        data.held_out(1)

    return asked(use)


def packed(place: Place, changed: dict[str, bytes]) -> bytes:
    """The good shard as a tar in which some members are others, or new."""
    buffer = io.BytesIO()
    with tarfile.open(place.world / "dataset/train-000000.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar} | changed  # type: ignore[union-attr]
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _blocks(draw: Random, good: bytes) -> bytes:
    blocks = [good[start : start + BLOCK] for start in range(0, len(good), BLOCK)]
    for _ in range(draw.choice((1, 2, 5))):
        place = draw.randrange(len(blocks))
        new = draw.choice(
            ([], [blocks[place]] * 2, [bytes(BLOCK)], [bytes(BLOCK)] * 2, [noise(draw, BLOCK)], [draw.choice(blocks)])
        )
        blocks[place : place + 1] = new
        blocks = blocks or [b""]
    return b"".join(blocks)


def _checked(header: bytes) -> bytes:
    """With the checksum that its other bytes have."""
    total = sum(header[:148]) + sum(header[156:BLOCK]) + 8 * 32
    return header[:148] + f"{total:06o}\0 ".encode() + header[156:]


def _field(draw: Random, header: bytes) -> bytes:
    start, width = FIELDS[draw.choice(sorted(FIELDS))]
    new = draw.choice(
        (
            bytes((draw.choice(KINDS),)),
            f"{draw.choice((0, 1, 511, 512, 2**20, 2**33 - 1)):0{width - 1}o}".encode(),
            b"\x80" + draw.getrandbits(64).to_bytes(8, "big").rjust(width - 1, b"\0"),
            b"\x80" + b"\2\0".rjust(width - 1, b"\0"),
            b"\xff" * width,
            b"-1",
            draw.choice(TEXTS).encode("utf-8", "surrogatepass"),
            noise(draw, width),
        )
    )[:width]
    return header[:start] + new.ljust(width, b"\0") + header[start + width :]


def _headers(draw: Random, good: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        starts = [member.offset for member in tar]
    for _ in range(draw.choice((1, 1, 3))):
        start = draw.choice(starts)
        header = _field(draw, good[start : start + BLOCK])
        good = good[:start] + (header if draw.random() < 0.1 else _checked(header)) + good[start + BLOCK :]
    return good


def _extended(draw: Random, good: bytes) -> bytes:
    """An extra header (pax, GNU's long names, sparse) before one of the members."""
    kind = draw.choice(b"xxxgLKSV")
    pairs = [
        (draw.choice(PAX), draw.choice((*TEXTS, *map(str, NUMBERS[:22]), "1,1", "0,5,9,", "BINARY"))) for _ in range(2)
    ]
    records = [f"{key}={value}\n".encode("utf-8", "surrogatepass") for key, value in pairs]
    sized = [f"{draw.choice((len(text) + 3, len(text) + 4, 0, 5, 10**9, -3))} ".encode() + text for text in records]
    content = (
        b"".join(sized) if kind in b"xg" else draw.choice(TEXTS).encode("utf-8", "surrogatepass") * draw.choice((1, 40))
    )
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = bytes((kind,)), len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    if draw.random() < 0.3:
        header = _checked(_field(draw, header))
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        start = draw.choice([member.offset for member in tar])
    return good[:start] + header + content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0") + good[start:]


def _members(draw: Random, good: bytes) -> bytes:
    """A well-formed tar of strange members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        files = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    for _ in range(draw.choice((1, 2, 4))):
        name, content = files[place := draw.randrange(len(files))]
        stem, _, ending = name.rpartition(".")
        odd = draw.choice(TEXTS).replace("\0", "0") or "x"
        files[place] = draw.choice(
            (
                (f"{odd}.{ending}", content),
                (f"{stem}.{draw.choice(('webm', 'avi', 'png', 'jpg', 'txt', 'json', 'pyd', 'MP4', '', odd))}", content),
                (draw.choice(files)[0], content),
                (f"{odd}/{name}", content),
                (name, draw.choice((b"", noise(draw, 700), damaged(draw, content), draw.choice(files)[1]))),
                (f"{stem}.json", json.dumps(strange(draw)).encode()),
            )
        )
    with tarfile.open(fileobj=buffer, mode="w", format=draw.choice((0, 1, 2)), errors="surrogateescape") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name.encode("utf-8", "replace").decode() if draw.random() < 0.9 else name)
            info.size = len(content)
            try:
                tar.addfile(info, io.BytesIO(content))
            except ValueError:  # a name that no tar can hold
                continue
    return buffer.getvalue()


def _wrapped(draw: Random, good: bytes) -> bytes:
    return draw.choice(
        (gzip.compress(good), bz2.compress(good), lzma.compress(good), good + good, good[: -2 * BLOCK], b"")
    )


_WAYS = (
    *(
        lambda draw, good: damaged(draw, good),
        _blocks,
        _headers,
        _headers,
        _headers,
        _extended,
        _extended,
        _members,
        _members,
    ),
    _wrapped,
)
