"""Rows 1 to 8: datasets that are empty, incomplete or damaged, and videos that are no use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from svdtrain.selftest.faults.archives import members
from svdtrain.selftest.faults.place import Place, fit, prepare
from svdtrain.selftest.faults.row import Broken, Fault, Run, Runs
from svdtrain.selftest.faults.videos import copied_from, sound, video

if TYPE_CHECKING:
    from collections.abc import Mapping

MADE = ("out", "out/*")
"""What a preparation may leave."""
TRAIN = "prepared/shards/train-000000.tar"


def _empty(place: Place) -> Runs:
    (place.folder / "clips").mkdir()
    yield Run(fit("data.source=clips"), 3, ("data.source='clips'", "no .tar shards"))
    for number in range(3):
        place.write(f"videos/{number}.mp4", "no video at all")
    place.write("videos/3.mp4", video(3, frames=1))
    yield Run(prepare(), 3, ("0 clips came out of 4 sources",), MADE)
    refuse_others(place, {"0.mp4": "no_media", "3.mp4": "too_short"})


def _missing_shard(place: Place) -> Runs:
    (place.copy("prepared") / "shards" / "train-000000.tar").unlink()
    yield Run(fit(), 3, (TRAIN,))


def _cut_shard(place: Place) -> Runs:
    for name, start in (("plain", "plain/train-000000.tar"), ("prepared", TRAIN)):
        place.copy(name)
        whole, second = (place.folder / start).read_bytes(), members(place.folder / start)[1]
        cuts = {
            "in a header": whole[: second.offset + 100],
            "in its data": whole[: second.offset_data + 7],
            "between members": whole[: second.offset],
            "to nothing": b"",
        }
        for content in cuts.values():
            (place.folder / start).write_bytes(content)
            yield Run(fit(f"data.source={name}"), 3, (start,))
        (place.folder / start).write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
        yield Run(fit(f"data.source={name}", "data.verify=full"), 3, (start,))


def _flipped_bit(place: Place) -> Runs:
    shard = place.copy("prepared") / "shards" / "train-000000.tar"
    content, first = bytearray(shard.read_bytes()), next(m for m in members(shard) if m.name.endswith(".mp4"))
    content[first.offset_data + first.size // 2] ^= 1
    shard.write_bytes(content)
    yield Run(fit("data.verify=full"), 3, (TRAIN, "sha256"))
    yield Run(fit("run_dir=run", "trainer.max_steps=9"), 3, ("clip '", TRAIN, "is damaged"), ("run", "run/*"))


def _damaged_video(place: Place) -> Runs:
    good = video(0)
    clips = {f"c{number}.mp4": good for number in range(3)}
    place.tar("bad/train-000000.tar", clips | {"bad.mp4": good[:300] + bytes(200) + good[500:]})
    place.tar("bad/held_out-000000.tar", {"h.mp4": good})
    yield Run(fit("data.source=bad"), 3, ("clip 'bad' in bad/train-000000.tar", "is damaged"))
    place.tar("many/train-000000.tar", clips | {f"bad{number}.mp4": b"text" for number in range(60)})
    place.tar("many/held_out-000000.tar", {"h.mp4": good})
    skip = ("data.source=many", "data.on_bad_sample=skip")
    yield Run(fit(*skip), 3, ("4 of 64 clips are usable: 60 no media; the last: clip 'bad", "many/train-000000.tar"))
    place.tar("few/train-000000.tar", clips | {"bad.mp4": b"text"})
    place.tar("few/held_out-000000.tar", {"h.mp4": good})
    allowed = fit("data.source=few", "data.on_bad_sample=skip", "trainer.max_steps=4", "run_dir=run")
    yield Run(allowed, 0, ("bad samples    replaced: ",), ("run", "run/*"))
    row = json.loads((place.folder / "run/bad_samples.jsonl").read_text().splitlines()[0])
    if (row["key"], row["shard"]) != ("bad", "few/train-000000.tar"):
        raise Broken(f"bad_samples.jsonl names {row}")


def _no_frames(place: Place) -> Runs:
    place.copy("videos")
    place.write("videos/sound.mp4", sound())
    place.write("videos/none.mp4", video(0, frames=0))
    place.write("videos/still.mp4", video(0, frames=1))
    yield Run(prepare(), 0, ("sources -> ",), MADE)
    refuse_others(place, {"sound.mp4": "no_media", "none.mp4": "no_media", "still.mp4": "too_short"})


def _short_clip(place: Place) -> Runs:
    place.tar("plain/train-000000.tar", {"long.mp4": video(0), "short.mp4": video(1, frames=5)})
    place.tar("plain/held_out-000000.tar", {"h.mp4": video(2)})
    words = fit("data.source=plain", "model.frames=8")
    yield Run(words, 3, ("clip 'short' in plain/train-000000.tar is too short: 8 frames", "it has 5 frames"))


def _counted_frames(place: Place) -> Runs:
    place.copy("videos")
    place.write("videos/cut.mp4", copied_from(video(7, frames=40, g="40"), 3.1))
    yield Run(prepare(), 0, ("sources -> ",), MADE)
    indexes = (place.folder / "out" / "shards").glob("*.idx.jsonl")
    rows = [json.loads(line) for index in indexes for line in index.read_text().splitlines()]
    frames = sum(row["frames"] for row in rows if row["source"] == "cut.mp4")
    if not 8 <= frames <= 15:
        raise Broken(f"{frames} frames were taken of cut.mp4, which holds 40 and shows 15")


def refuse_others(place: Place, reasons: Mapping[str, str]) -> None:
    """Raise Broken where rejected.jsonl says something else of these sources."""
    rows = [json.loads(line) for line in (place.folder / "out/rejected.jsonl").read_text().splitlines()]
    found = {row["source"]: row["reason"] for row in rows}
    for source, reason in reasons.items():
        if found.get(source) != reason:
            raise Broken(f"rejected.jsonl says '{found.get(source)}' of {source}, not '{reason}'")


ROWS = (
    Fault(1, "an empty dataset, or every clip rejected", _empty),
    Fault(2, "a shard is missing", _missing_shard),
    Fault(3, "a shard is cut short, or its end is zeros", _cut_shard),
    Fault(4, "one bit of a shard is flipped", _flipped_bit),
    Fault(5, "a damaged video in a shard", _damaged_video),
    Fault(6, "videos of no frame, of sound only, of one frame", _no_frames),
    Fault(7, "a clip shorter than what is trained", _short_clip),
    Fault(8, "a container that reports frames which it does not show", _counted_frames),
)
