"""Tells trackers what no number says: sample videos, saved adapters, alerts, and that the run is over."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

from svdtrain.adapters.files import CONFIG, WEIGHTS
from svdtrain.foundation.errors import NumericError
from svdtrain.foundation.secrets import redacted
from svdtrain.generation.video_files import write_mp4
from svdtrain.training.trackers.tracker import Look, LookedInput, SavedAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytorch_lightning as pl

    from svdtrain.training.callbacks.early import EarlyStop
    from svdtrain.training.callbacks.guard import NumericGuard
    from svdtrain.training.callbacks.sample import SampleVideos
    from svdtrain.training.callbacks.save import SaveCheckpoints
    from svdtrain.training.callbacks.validate import SigmaGridValidation
    from svdtrain.training.trackers.background import BackgroundLogger

COPIES = ".tracked-"
MOST_ALERTS = 3
"""Of a kind: what goes on is in the curves."""


@dataclass(frozen=True)
class Watched:
    """The callbacks whose news are told."""

    guard: NumericGuard
    validation: SigmaGridValidation
    samples: SampleVideos
    save: SaveCheckpoints
    early: EarlyStop


class TrackRun(Callback):
    """Stands last, so that it finds what others did at a step; it waits for no tracker."""

    def __init__(
        self,
        run_dir: Path,
        trackers: Sequence[BackgroundLogger],
        watched: Watched,
        media: str,
        settings: Mapping[str, Any],
        adapter: Mapping[str, Any],
        dataset: Mapping[str, Any],
    ) -> None:
        """settings, adapter, dataset: what is told of each."""
        self.run_dir, self.trackers, self.watched, self.media = run_dir, trackers, watched, media
        self.settings, self.adapter, self.dataset = settings, adapter, dataset
        self.saved: dict[int, float | None] = {}
        """Step -> held-out ratio of each save."""
        self._alerts: dict[str, int] = {}
        self._seen: tuple[int, int, int, int] | None = None
        self._is_open = False

    def on_fit_start(self, *_: Any) -> None:  # noqa: ANN401
        """Nothing can be refused any more: the trackers begin."""
        for left in self.run_dir.glob(f"{COPIES}*") if self.trackers else ():
            shutil.rmtree(left)
        self._tell("start", self.settings)
        self._tell("dataset", self.dataset)
        self._is_open = True

    def on_train_start(self, *_: Any) -> None:  # noqa: ANN401
        """A checkpoint is restored. The held-out clips become files, where they may leave."""
        self._seen = self._state()
        samples = self.watched.samples
        if self.media == "all" and self.trackers:
            for index, (request, truth) in enumerate(zip(samples.requests, samples.truths, strict=True)):
                write_mp4(self._video("held-out", index), truth, request.fps)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Whatever has changed since the last batch."""
        if self._seen is None or not self.trackers:
            return
        (skipped, spikes, looked, saved), self._seen = self._seen, self._state()
        guard, step = self.watched.guard, trainer.global_step
        if self._seen[0] > skipped:
            self._alert("NaN", f"step {guard.skipped[-1]} is skipped: its loss or gradient was not finite")
        if self._seen[1] > spikes:
            self._alert("spike", guard.last_spike)
        if self._seen[2] != looked and self.media != "none":
            self._tell("look", self._look(step))
        if self._seen[3] != saved:
            self._adapter(step)

    def on_fit_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Done, or stopped by a signal."""
        whole = trainer.global_step >= trainer.max_steps or self.watched.early.ended is not None
        state = "done" if whole else "stopped"
        self._end(state, f"{state} at step {trainer.global_step}: {self.watched.validation.verdict().sentence}")

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Failed, and by what."""
        said = str(exception).partition("\n")[0] or type(exception).__name__
        if isinstance(exception, NumericError):
            self._alert("NaN", said)
        self._end("failed", f"failed at step {trainer.global_step}: {said}")

    def _end(self, state: str, text: str) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._alert("end", text)
        steps = sorted(int(one.name[5:]) for one in (self.run_dir / "samples").glob("step-*[1-9]*"))
        looks = [self._look(step) for step in steps if self.media != "none"]
        for tracker in self.trackers:
            tracker.close(state, looks)

    def _state(self) -> tuple[int, int, int, int]:
        watched = self.watched
        return len(watched.guard.skipped), watched.guard.spikes, watched.samples.last_step, watched.save.saved_step

    def _tell(self, method: str, told: object) -> None:
        for tracker in self.trackers:
            tracker.tell(method, told)

    def _alert(self, title: str, text: str) -> None:
        """Names of clips stay here, unless media of the data may leave."""
        self._alerts[title] = self._alerts.get(title, 0) + 1
        if self._alerts[title] > MOST_ALERTS:
            return
        named = text if self.media == "all" else re.sub(r"clip '[^']*'", "a clip", text)
        for tracker in self.trackers:
            tracker.tell("alert", title, redacted(named))

    def _look(self, step: int) -> Look:
        requests, whole = self.watched.samples.requests, self.media == "all"
        inputs = [
            LookedInput(
                name=f"input-{index}",
                base=self._video("step-000000", index),
                adapter=self._video(f"step-{step:06d}", index),
                truth=self._video("held-out", index) if whole else None,
                caption=request.prompt if whole else "",
            )
            for index, request in enumerate(requests)
        ]
        return Look(step, self.watched.validation.ratios.get(step), inputs)

    def _video(self, folder: str, index: int) -> Path:
        return self.run_dir / "samples" / folder / f"input-{index}.mp4"

    def _adapter(self, step: int) -> None:
        """A copy of RUN/adapter for each tracker: the next save replaces it. It costs no space where links are possible."""
        ratio = self.watched.validation.ratios.get(step)
        judged = [each for each in self.saved.values() if each is not None]
        is_best = ratio is not None and ratio <= min([ratio, *judged])
        self.saved[step] = ratio
        if not (self.run_dir / "adapter" / WEIGHTS).exists():  # every weight was trained
            return
        about = {**self.adapter, "step": step, "held_out_loss_ratio": ratio}
        for number, tracker in enumerate(self.trackers):
            copy = self.run_dir / f"{COPIES}{number}-{step:06d}"
            copy.mkdir()
            for name in (WEIGHTS, CONFIG):
                _copy(self.run_dir / "adapter" / name, copy / name)
            if not tracker.tell("saved", SavedAdapter(copy, step, is_best, about)):
                shutil.rmtree(copy)

    def state_dict(self) -> dict[str, Any]:
        """So that a resumed run knows which was best."""
        return {"saved": self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored before on_train_start."""
        self.saved = state_dict["saved"]


def _copy(file: Path, to: Path) -> None:
    """A second name of the same bytes, which stay when the first one is given to others; or a copy."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copy(file, to)
