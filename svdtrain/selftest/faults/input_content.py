"""Rows 9 to 17: videos that hang, crash or overwhelm a decoder, odd captions and members, caches and data that changed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.selftest.children import Conditions
from svdtrain.selftest.faults.archives import members
from svdtrain.selftest.faults.input_files import MADE, refuse_others
from svdtrain.selftest.faults.place import Place, fit, prepare
from svdtrain.selftest.faults.row import Broken, Fault, Run, Runs
from svdtrain.selftest.faults.videos import FPS, endless, huge, video

if TYPE_CHECKING:
    from collections.abc import Callable

STAND_IN = """
import os, sys
if any("svdtrain" in word or "multiprocessing" in word for word in sys.orig_argv):
    from svdtrain.data import decoding
    real = decoding.probe
    def probe(data, name):
        if {mark!r} in data:
            {fault}
        return real(data, name)
    decoding.probe = probe
"""
"""No video is known that hangs or crashes the FFmpeg of PyAV: in the decoding processes, this sitecustomize.py does."""
MARK = b"a stand-in for a fault"
CACHE = ("data.cache=disk", "data.cache_dir=latents")


def decoder(fault: str, reason: str, said: str) -> Callable[[Place], Runs]:
    """A row whose decoder does this at the videos named bad."""

    def runs(place: Place) -> Runs:
        under = Conditions(stand_in=STAND_IN.format(fault=fault, mark=MARK))
        bad = video(9) + (8 + len(MARK)).to_bytes(4, "big") + b"free" + MARK
        place.tar("plain/train-000000.tar", {"a.mp4": video(0), "bad.mp4": bad, "c.mp4": video(2)})
        place.tar("plain/held_out-000000.tar", {"h.mp4": video(1)})
        words = fit("data.source=plain", "data.decode_deadline=3")
        yield Run(words, 3, ("clip 'bad' in plain/train-000000.tar", said), under=under)
        place.copy("videos")
        place.write("videos/bad.mp4", bad)
        yield Run(prepare("deadline=8"), 0, ("6 clips kept, 1 rejected",), MADE, under)
        refuse_others(place, {"bad.mp4": reason})

    return runs


def _overwhelming(place: Place) -> Runs:
    for name, content, said in (
        ("large", huge(), "has pictures of 16384x8640"),
        ("long", endless(), "declares 50,000,000 frames in"),
    ):
        place.tar(f"{name}/train-000000.tar", {"bad.mp4": content, "b.mp4": video(0)})
        place.tar(f"{name}/held_out-000000.tar", {"h.mp4": video(1)})
        yield Run(fit(f"data.source={name}"), 3, (f"clip 'bad' in {name}/train-000000.tar {said}",))


def _not_finite(place: Place) -> Runs:
    place.copy("prepared")
    encode = ["cache", *fit(*CACHE)[1:]]
    yield Run(encode, 0, changes=("latents", "latents/*"), shown=False)
    [tar] = (place.folder / "latents").glob("*.latents.tar")
    index = tar.with_name(f"{tar.stem}.idx.jsonl")
    content, rows = bytearray(tar.read_bytes()), [json.loads(line) for line in index.read_text().splitlines()]
    for row in rows:
        start, end = row["offset"], row["offset"] + row["size"]
        length = int.from_bytes(content[start : start + 8], "little")
        header = json.loads(content[start + 8 : start + 8 + length])
        first = start + 8 + length + header["mean_RCHW"]["data_offsets"][0]
        content[first : first + 2] = np.array([np.nan], np.float16).tobytes()
        row["sha256"] = hashlib.sha256(content[start:end]).hexdigest()
    tar.write_bytes(content)
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = (f"latents/{tar.name}: mean_RCHW of '", "is not finite")
    yield Run(fit(*CACHE, "run_dir=run"), 3, said, ("run", "run/*"))
    place.copy("videos")
    place.write("videos/black.mp4", video(0, picture=lambda *_: np.zeros((32, 32, 3), np.uint8)))
    yield Run(prepare(), 0, ("1 rejected (1 black)",), MADE)


def _mixed(place: Place) -> Runs:
    kinds = {
        "tall": video(0, size=(48, 32)),
        "turned": video(1, size=(32, 48), rotation=90),
        "odd": video(2, size=(33, 47), pixels="yuv444p"),
        "deep": video(3, pixels="yuv420p10le"),
        "uneven": video(4, frames=9, times=[0.9 * number / FPS - 0.03 * (number % 3 > 0) for number in range(9)]),
        "fast": video(5, fps=24, frames=24),
    }
    for name, content in kinds.items():
        place.write(f"videos/{name}.mp4", content)
    words = prepare(
        "buckets=[[32,32,3],[48,32,3]]", "fps=8", "least_seconds=0.5", "most_upscale=2.0", "most_crop=0.5", "crf=0"
    )
    yield Run(words, 0, ("6 sources -> ", "0 rejected"), MADE)
    yield Run(
        fit("data.source=out", "data.buckets=true", "model.size_multiple=16", "run_dir=run"), 0, (), ("run", "run/*")
    )


def _captions(place: Place) -> Runs:
    place.copy("videos")
    texts = {"0": b"caf\xe9", "1": b"\xef\xbb\xbfa mark before it", "2": b"", "3": b"long " * 300_000}
    for name, content in texts.items():
        place.write(f"videos/{name}.txt", content)
    yield Run(prepare(), 0, ("6 sources -> ", "3 rejected"), MADE)
    refuse_others(place, {"0.txt": "bad_caption", "2.txt": "bad_caption", "3.txt": "bad_caption"})
    why = (place.folder / "out" / "rejected.jsonl").read_text()
    if "byte 3: b'\\\\xe9' is no UTF-8" not in why:
        raise Broken(f"rejected.jsonl does not say where 0.txt is no UTF-8: {why}")
    place.write("table/metadata.csv", b"file_name,text\n0.mp4,caf\xe9\n")
    place.write("table/0.mp4", video(0))
    yield Run(prepare("source=table", "out=two"), 3, ("table/metadata.csv: byte 24", "no UTF-8"), ("two", "two/*"))


def _strange_members(place: Place) -> Runs:
    good = video(0)
    held_out = {"h.mp4": video(1)}
    for name, content in {"a": {"a.txt": b"a", "a.json": b"{}"}, "b": {"b.flac": b"a"}}.items():
        place.tar(f"{name}/train-000000.tar", content)
        place.tar(f"{name}/held_out-000000.tar", held_out)
        yield Run(fit(f"data.source={name}"), 3, (f"{name}/train-000000.tar holds no video: its members are .",))
    path = place.tar("twice/train-000000.tar", {"a.mp4": good, "b.mp4": good})
    place.tar("twice/held_out-000000.tar", held_out)
    content = bytearray(path.read_bytes())
    first, second = members(path)
    content[second.offset : second.offset + 512] = content[first.offset : first.offset + 512]
    path.write_bytes(content)
    yield Run(fit("data.source=twice"), 3, ("twice/train-000000.tar holds 'a.mp4' twice",))
    facts = json.dumps({"fps": FPS}).encode()
    mixed_up = {"a.mp4": good, "b.mp4": video(2), "b.json": facts, "a.json": facts}
    place.tar("mixed/train-000000.tar", mixed_up)
    place.tar("mixed/held_out-000000.tar", held_out)
    yield Run(fit("data.source=mixed", "run_dir=run"), 0, ("2 clips and 1 held out",), ("run", "run/*"))


def _foreign_cache(place: Place) -> Runs:
    place.copy("prepared")
    yield Run(["cache", *fit(*CACHE)[1:]], 0, changes=("latents", "latents/*"), shown=False)
    other_size = fit(*CACHE, "model.height=48")
    yield Run(other_size, 3, ("the cache latents is stale: height was 32, now 48",))
    recipe = place.folder / "latents" / "recipe.json"
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"encoders": "0" * 16}))
    yield Run(fit(*CACHE), 3, ("the cache latents is stale: encoders was '0000000000000000', now '",))


def _changed_data(place: Place) -> Runs:
    place.copy("run")
    place.copy("videos")
    (place.folder / "videos" / "3.mp4").unlink()
    yield Run(prepare("out=prepared"), 0, changes=("prepared", "prepared/*"), shown=False)
    resumed = fit("resume=run", "trainer.max_steps=3")
    yield Run(resumed, 3, ("the run cannot go on: the dataset of data.source was ",))
    yield Run([*resumed, "data.allow_change=true"], 0, ("the dataset of data.source was ",), ("run/*",))


ROWS = (
    Fault(
        9, "a video that hangs the decoder (by a stand-in)", decoder("while True: pass", "hang", "hangs the decoder")
    ),
    Fault(
        10, "a video that crashes the decoder (by a stand-in)", decoder("os.abort()", "crash", "crashes the decoder")
    ),
    Fault(11, "pictures or frames beyond all measure", _overwhelming),
    Fault(12, "encodings that are not finite, black videos", _not_finite),
    Fault(13, "mixed sizes, turned, odd, 10 bit, uneven rates", _mixed),
    Fault(14, "captions: no UTF-8, with a mark, empty, too long", _captions),
    Fault(15, "shards: no video, a name twice, members mixed up", _strange_members),
    Fault(16, "a latent cache of another size, of other encoders", _foreign_cache),
    Fault(17, "the dataset changed before a resume", _changed_data),
)
