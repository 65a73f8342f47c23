"""Bad videos and pictures, decoded as fit decodes a clip that nobody has verified: in a child, to frames of one size."""

from __future__ import annotations

import struct
from random import Random

from svdtrain.data.buckets import Sampling
from svdtrain.data.clip import Clip, Shard
from svdtrain.data.index import STILL_EXTENSIONS
from svdtrain.data.stream import load_item
from tests.fuzz.mutations import damaged, noise
from tests.fuzz.place import Answer, Place, asked
from tests.tiny_models import SIZE

PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"edts", b"mvex")
NOT_VIDEOS = (
    *(
        b"#EXTM3U\n#EXTINF:1,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"GIF89a",
    ),
    *(
        b"RIFF\0\0\0\0AVI ",
        b"\x1a\x45\xdf\xa3",
        b"\0\0\0\x20ftypisom",
        b"\0\0\0\1moov" + b"\xff" * 8,
        b"\0\0\1\xba",
        b"FLV\1",
    ),
)


def attempt(draw: Random, place: Place) -> Answer:
    """One bad video, or one time in eight a picture."""
    files = sorted((place.world / "videos").iterdir())
    wanted = draw.random() < 0.125
    files = [file for file in files if (file.suffix[1:] in STILL_EXTENSIONS) == wanted]
    files = files if wanted else [*files, *(file for file in files if file.suffix in (".mp4", ".mov"))]
    file = draw.choice(files)
    data = file.read_bytes()
    kind = draw.randrange(10)
    if kind == 0:
        data = draw.choice((*NOT_VIDEOS, draw.choice(NOT_VIDEOS) + noise(draw, 900), b"", noise(draw, 40)))
    elif kind == 1:
        other = draw.choice(files).read_bytes()
        data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
    elif kind < 6 and file.suffix in (".mp4", ".mov"):
        data = _boxes(draw, data)
    else:
        data = damaged(draw, data)
    path = place.write("a.tar", data or b"\0")
    frames, fps = draw.choice((1, 3, 8)), draw.choice((None, None, 7.0, 25.0))
    sampling = Sampling(frames, SIZE, draw.choice((SIZE, 2 * SIZE)), fps, None)
    clip = Clip(f"clip/{file.name}", Shard(path), 0, path.stat().st_size, "video", still=wanted)
    return asked(lambda: load_item(clip, sampling, 0, place=draw.random(), child=place.child))


def _boxes(draw: Random, data: bytes) -> bytes:
    """An mp4 with one to three of its boxes renamed, resized, removed, doubled, moved, or with other numbers in them."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        found = _found(data, 0, len(data))
        if not found:
            return data
        start, size = draw.choice(found)
        box = data[start : start + size]
        number = struct.pack(">I", draw.choice((0, 1, 2, 255, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)))
        inside = 8 + draw.randrange(max(1, size - 8)) // 4 * 4
        new = draw.choice(
            (
                box[:inside] + number + box[inside + 4 :],
                box[:inside] + number + box[inside + 4 :],
                box[:8] + number * 4 + box[24:],
                struct.pack(">I", draw.choice((0, 1, 7, 8, 9, size - 1, size + 1, 2**31, 2**32 - 1))) + box[4:],
                box[:4] + draw.choice((b"free", b"moov", b"cmov", b"stsz", b"trun", noise(draw, 4))) + box[8:],
                box[:inside] + noise(draw, 16) + box[inside + 16 :],
                b"",
                box * 2,
            )
        )
        data = data[:start] + new + data[start + size :]
    return data


def _found(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """(start, size) of every box."""
    boxes: list[tuple[int, int]] = []
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        if not 8 <= size <= end - start:
            break
        boxes.append((start, size))
        if data[start + 4 : start + 8] in PARENTS:
            boxes += _found(data, start + 8, start + size)
        start += size
    return boxes
