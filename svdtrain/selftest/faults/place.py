"""Where a row takes place: a folder of its own, and good things that it copies there and damages."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.data.shards import write_shard
from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import packaged
from svdtrain.selftest.children import Nursery
from svdtrain.selftest.faults.archives import write_tar
from svdtrain.selftest.faults.row import Answer, Run
from svdtrain.selftest.faults.videos import FPS, video
from svdtrain.training.checkpoint import newest_whole, step_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from svdtrain.selftest.children import Child

VIDEOS = 6
ADAPTER = Path("adapter") / "adapter_model.safetensors"
"""In a run's folder."""
SHORT = (
    "config=style_lora",
    "model.frames=3",
    "model.height=32",
    "model.width=32",
    "adapter.rank=1",
    "adapter.targets=temporal",
    "adapter.modules=attention",
    "optimizer.warmup_steps=0",
    "data.source=prepared",
    "data.batch_size=1",
    "data.workers=0",
    "trainer.device=cpu",
    "trainer.max_steps=2",
    "trainer.save_every=1",
    "trainer.log_every=1",
    "validation.every=1000000",
    "validation.clips=1",
    "validation.sigmas=[2.0]",
    "validation.sample_inputs=0",
    "validation.sampling_steps=1",
)
"""A fit of a second or two, on the dataset `prepared` beside it."""
PREPARE = ("workers=1", "scenes=false", "seconds=1", "least_seconds=0.2", "duplicate_bits=null", "most_repeated=1.0")


def fit(*words: str) -> list[str]:
    """The words of a short fit; the later ones win."""
    return ["fit", *{word.partition("=")[0]: word for word in (*SHORT, *words)}.values()]


def prepare(*words: str) -> list[str]:
    """The words of a preparation of `videos` to `out`; the later ones win."""
    given = ("source=videos", "out=out", *PREPARE, *words)
    return ["prepare", *{word.partition("=")[0]: word for word in given}.values()]


class Kit:
    """Good things, each made when it is first wanted; and the processes that run the commands. For one thread."""

    def __init__(self, root: Path) -> None:
        self.root, self.places = root, 0
        (root / "kit").mkdir(parents=True)

    @cached_property
    def nursery(self) -> Nursery:
        """Of all rows."""
        return Nursery(self.root / "said")

    @cached_property
    def videos(self) -> Path:
        """A folder of videos with captions, as people keep them."""
        folder = self.root / "kit" / "videos"
        folder.mkdir()
        for number in range(VIDEOS):
            (folder / f"{number}.mp4").write_bytes(video(number))
            (folder / f"{number}.txt").write_text(f"square {number}")
        return folder

    @cached_property
    def plain(self) -> Path:
        """Shards without index or manifest."""
        folder = self.root / "kit" / "plain"
        clips = [(f"c{number}", video(number), {"fps": FPS}) for number in range(VIDEOS)]
        write_shard(folder / "train-000000.tar", clips[1:])
        write_shard(folder / "held_out-000000.tar", clips[:1])
        return folder

    @cached_property
    def prepared(self) -> Path:
        """What `prepare` makes of the videos."""
        self.done(prepare(f"source={self.videos}", "out=prepared"))
        return self.root / "kit" / "prepared"

    @cached_property
    def run(self) -> Path:
        """A fit of two steps, each saved."""
        assert self.prepared
        self.done(fit("run_dir=run"))
        return self.root / "kit" / "run"

    @cached_property
    def model(self) -> Path:
        """The packaged model as a folder of its own."""
        shutil.copytree(packaged("assets") / "nano", self.root / "kit" / "model")
        return self.root / "kit" / "model"

    def done(self, words: list[str]) -> None:
        """Run a command that has to end well. SystemFault when it does not: nothing can be tried then."""
        answer = self.answer(Run(words, 0), self.root / "kit", {"HOME": str(self.root)})
        if answer.code:
            raise SystemFault(f"selftest: `{words[0]}` left with {answer.code}: {' '.join(answer.lines)}")

    def answer(self, run: Run, folder: Path, environment: dict[str, str]) -> Answer:
        """Run a command line in a folder, and do to it what the row wants."""
        child = self.start(run, folder, environment)
        try:
            if run.meanwhile:
                run.meanwhile(child)
            code = child.wait(run.seconds)
        finally:
            child.end()
        return Answer(code, *child.said())

    def start(self, run: Run, folder: Path, environment: dict[str, str]) -> Child:
        """A command line that runs from now on."""
        surroundings = replace(run.under, environment=environment | dict(run.under.environment))
        return self.nursery.start(list(run.words), folder, surroundings)

    def close(self) -> None:
        """End the processes."""
        if "nursery" in vars(self):
            self.nursery.close()


class Place:
    """One row's folder."""

    def __init__(self, kit: Kit, name: str) -> None:
        kit.places += 1
        self.kit, self.folder = kit, kit.root / f"{name}.{kit.places}"
        self.home = kit.root / f"{name}.{kit.places}.home"
        for folder in (self.folder, self.home):
            folder.mkdir()

    def copy(self, what: str, name: str = "") -> Path:
        """A copy of one of the kit's good things, under its own name or another."""
        to = self.folder / (name or what)
        shutil.copytree(getattr(self.kit, what), to)
        return to

    def write(self, name: str, content: bytes | str) -> Path:
        """A file, and the folders above it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def tar(self, name: str, members: Mapping[str, bytes]) -> Path:
        """A plain tar of these files, and the folders above it."""
        path = self.folder / name
        write_tar(path, members.items())
        return path

    def answer(self, run: Run) -> Answer:
        """What a run in this folder comes to; its home is empty, and its own."""
        return self.kit.answer(run, self.folder, {"HOME": str(self.home)})

    @contextmanager
    def running(self, run: Run) -> Iterator[Child]:
        """A command line beside others; it is gone at the end of the block."""
        child = self.kit.start(run, self.folder, {"HOME": str(self.home)})
        try:
            yield child
        finally:
            child.end()

    def marks(self) -> dict[str, str]:
        """File, from the folder -> sha256; for a link what it points at, for a folder nothing."""
        found: dict[str, str] = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[name] = ""
        return found


def saved(place: Place, steps: int) -> bool:
    """Whether `run` has a whole checkpoint of so many steps or more."""
    newest, _ = newest_whole(place.folder / "run")
    return newest is not None and step_of(newest) >= steps


def step_told(place: Place) -> int:
    """The step that `run` has come to, by its own record."""
    return json.loads((place.folder / "run" / "run.json").read_text())["step"]
