"""Bad JSON (and the YAML of a run) in every file of it that svdtrain reads back: datasets, checkpoints, runs, caches."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import yaml

from svdtrain.config.changes import refuse_changes
from svdtrain.data.bad_samples import BadSamplePolicy, BadSamples
from svdtrain.data.latent_cache import LatentCache
from svdtrain.reporting.run_record import RunRecord
from svdtrain.training.checkpoint import FolderCheckpoint, about_checkpoint, newest_whole, step_of
from tests.fuzz import tars
from tests.fuzz.mutations import RAW_JSON, altered, damaged, json_bytes, strange
from tests.fuzz.place import RECIPE, Answer, Place, asked, shard_row

CONFIG = {
    "name": "a",
    "seed": 1,
    "adapter": {"rank": 4, "targets": "both"},
    "optimizer": {"schedule": "cosine", "learning_rate": 1e-4},
    "trainer": {"max_steps": 5},
}


def attempt(draw: Random, place: Place) -> Answer:
    """One bad file."""
    return draw.choice(WAYS)(draw, place)


def manifest(draw: Random, place: Place) -> Answer:
    """The manifest of a dataset."""
    file = place.copy("dataset") / "manifest.json"
    file.write_bytes(json_bytes(draw, json.loads(file.read_text())))
    return tars.train_on(draw, place, str(file.parent), captions=False)


def index(draw: Random, place: Place) -> Answer:
    """The index of a shard, which the manifest vouches for."""
    folder = place.copy("dataset")
    file = folder / "train-000000.idx.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    if draw.random() < 0.8:
        number = draw.randrange(len(lines))
        rows = [json_bytes(draw, line) if n == number else json.dumps(line).encode() for n, line in enumerate(lines)]
        file.write_bytes(b"\n".join(rows) + b"\n")
    else:
        file.write_bytes(damaged(draw, file.read_bytes()))
    said = json.loads((folder / "manifest.json").read_text())
    said["shards"][0] = shard_row(folder / "train-000000.tar", file, draw.choice((2, 3, 3, 3, 3, 4)))
    (folder / "manifest.json").write_text(json.dumps(said))
    return tars.train_on(draw, place, str(folder), buckets=draw.random() < 0.5, multiple=16)


def clip(draw: Random, place: Place) -> Answer:
    """A clip's own .json."""
    about = {
        "fps": 7,
        "frames": 5,
        "motion_bucket_id": 40,
        "caption": "a square",
        "source": {"path": "v.mp4"},
        "url": "u",
    }
    place.write("data/a.tar", tars.packed(place, {"clip.0.json": json_bytes(draw, about)}))
    return tars.train_on(draw, place, str(place.folder / "data"))


def checkpoint_manifest(draw: Random, place: Place) -> Answer:
    """What a checkpoint says of its files, or a file that is not what it says."""
    folder = place.copy("run") / "checkpoints/step-000003"
    file = folder / draw.choice(("manifest.json", "manifest.json", "state.json", "tensors.safetensors"))
    if file.name == "manifest.json":
        file.write_bytes(json_bytes(draw, json.loads(file.read_text())))
    else:
        file.write_bytes(damaged(draw, file.read_bytes()))
    return asked(lambda: _resumed(folder.parent.parent))


def state(draw: Random, place: Place) -> Answer:
    """A state that the checkpoint's manifest vouches for; now and then beside tensors that nobody could have saved."""
    folder = place.copy("run") / "checkpoints/step-000003"
    names = ("state.json", "tensors.safetensors") if draw.random() < 0.2 else ("state.json",)
    said = json.loads((folder / "manifest.json").read_text())
    for name in names:
        content = (folder / name).read_bytes()
        content = json_bytes(draw, json.loads(content)) if name == "state.json" else damaged(draw, content)
        (folder / name).write_bytes(content)
        said["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "manifest.json").write_text(json.dumps(said))
    return asked(lambda: _resumed(folder.parent.parent))


def _resumed(run: Path) -> None:
    newest, passed_over = newest_whole(run)
    assert all(str(run) in line for line in passed_over)
    if newest:
        step_of(newest)
        about_checkpoint(newest)
        FolderCheckpoint().load_checkpoint(newest)


def run(draw: Random, place: Place) -> Answer:
    """The record and the settings of a run that is to go on."""
    record, settings = (
        json.dumps({"name": "a", "state": "running", "versions": {}}).encode(),
        yaml.safe_dump(CONFIG).encode(),
    )
    if draw.random() < 0.5:
        record = json_bytes(draw, json.loads(record))
    elif draw.random() < 0.5:
        settings = json_bytes(draw, CONFIG)  # most JSON is YAML
    else:
        settings = draw.choice(
            (
                damaged(draw, settings),
                yaml.safe_dump(altered(draw, CONFIG), allow_unicode=True).encode("utf-8", "surrogatepass"),
                *(b"- " * 3000, b"a: &a [*a]", b"&a [&b [*a]]", b"a: !!python/object/apply:os.system [id]", b"a: b: c"),
                *(
                    b"{" * 3000,
                    b"%YAML 9.9\n---\na: 1",
                    b"a: 2001-99-99",
                    b"? [1]\n: 2",
                    b"--- 1\n--- 2",
                    b"a: 1:99:99.5",
                    b"\t",
                ),
                *(
                    b"x: !!binary '@'",
                    b"x: !!timestamp 2020-13-45",
                    b"<<: 1",
                    b"a: !!int ''",
                    b"? {a: 1}\n: 2",
                    b"{[]: 1}",
                ),
                b"\n".join(
                    [
                        b"a0: &a0 [x]",
                        *(b"a%d: &a%d [%s]" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)),
                    ]
                ),
            )
        )
    folder = place.write("run/run.json", record).parent
    place.write("run/config.yaml", settings)

    def resume() -> None:
        opened = RunRecord.reopen(folder, writes=draw.random() < 0.5)
        refuse_changes(opened.config(), CONFIG, ())
        opened.update(state="running")

    place.names.extend(("the run cannot go on: ",))
    return asked(resume)


def cache(draw: Random, place: Place) -> Answer:
    """The recipe, the index or an entry's header of a latent cache."""
    folder = place.copy("cache")
    tar, listed = folder / "train-000000.latents.tar", folder / "train-000000.latents.idx.jsonl"
    kind = draw.randrange(3)
    if kind == 0:
        file = folder / "recipe.json"
        file.write_bytes(json_bytes(draw, json.loads(file.read_text())))
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    if kind == 1:
        rows[0] |= draw.choice(({}, {"refused": strange(draw), "reason": strange(draw)}))
        listed.write_bytes(b"\n".join([json_bytes(draw, rows[0]), json.dumps(rows[1]).encode()]))
    if kind == 2:
        content = tar.read_bytes()[rows[0]["offset"] :][: rows[0]["size"]]
        content = _entry(draw, content)
        tar.write_bytes(content)
        rows = [{"key": "a", "offset": 0, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
        listed.write_text(json.dumps(rows[0]))

    def use() -> None:
        opened = LatentCache(folder, RECIPE)
        for key in (*list(opened.places), *list(opened.refused)):
            window = opened.read(key).window(draw.random())
            assert window.mean_TCHW.ndim == window.logvar_TCHW.ndim == 4

    place.names.extend(opened for opened in ("clip",) if kind == 1)
    return asked(use)


def _entry(draw: Random, content: bytes) -> bytes:
    """An entry in safetensors with a bad header, whose place and sha256 are right."""
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.3:
        return damaged(draw, content) or b"\0"
    header = json_bytes(draw, json.loads(content[8 : 8 + length]))
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def bad_samples(draw: Random, place: Place) -> Answer:
    """bad_samples.jsonl of a run that goes on: whatever stands there is kept."""
    row = {"position": 3, "key": "a", "shard": "s.tar", "reason": "damaged", "message": "m", "rank": 0, "step": 1}
    file = place.write(
        "bad_samples.jsonl", b"\n".join((json.dumps(row).encode(), json_bytes(draw, row), draw.choice(RAW_JSON)))
    )
    samples = BadSamples(BadSamplePolicy(skip=True))
    return asked(lambda: samples.write_to(file))


WAYS: tuple[Callable[[Random, Place], Answer], ...] = (
    *(
        manifest,
        manifest,
        index,
        index,
        clip,
        clip,
        checkpoint_manifest,
        state,
        state,
        run,
        run,
        cache,
        cache,
        bad_samples,
    ),
)
