"""Held-out loss on a fixed grid: the same clips, noise and noise levels every time, as a ratio to the base.

The training loss is mostly the random choice of noise level; this one moves only when the model does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning.callbacks import Callback

from svdtrain.evaluation.noise_grid import PreparedClip, losses_on_grid, prepare
from svdtrain.evaluation.verdict import LossHistory, judged
from svdtrain.reporting.run_events import SILENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytorch_lightning as pl

    from svdtrain.evaluation.verdict import Verdict
    from svdtrain.reporting.run_events import RunEvents
    from svdtrain.training.callbacks.average import WeightAverage
    from svdtrain.training.module import FineTuning
    from svdtrain.types import ClipBatch


Losses = dict[int, list[list[float]]]
"""Of each look, by step (0: the base), clip and noise level."""
PREFIXES = {"held_out": "val", "training": "train", "generic": "generic"}
"""Of metrics, by the group of clips."""


class SigmaGridValidation(Callback):
    """Logs val_sigma_S (loss), val_ratio_S and val_ratio (adapter over base) every few optimizer steps.

    Likewise train_… of a few training clips, and generic_… of clips of anything else.
    """

    def __init__(
        self,
        clips: Mapping[str, Sequence[ClipBatch | PreparedClip]],
        sigmas: Sequence[float],
        every: int,
        average: WeightAverage,
        events: RunEvents = SILENT,
    ) -> None:
        self.clips = dict(clips)
        """By group: held_out, and perhaps training and generic."""
        self.sigmas, self.every, self.average, self.events = sigmas, every, average, events
        self.losses: dict[str, Losses] = {group: {} for group in clips}
        self.ratios: dict[int, float] = {}
        """Of held-out clips."""
        self.last_step = 0
        self.by_level: dict[str, float] = {}
        """Of the last look: sigma -> held-out loss as a ratio to the base's."""

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """The base's losses: an adapter starts as the identity. Clips are encoded once for all looks."""
        for group, clips in self.clips.items():
            self.clips[group] = [one if isinstance(one, PreparedClip) else prepare(module.family, one) for one in clips]
        if not self.losses["held_out"]:
            self._look(trainer, module, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """On the grid of steps, and at the last."""
        step = trainer.global_step
        if step != self.last_step and (step % self.every == 0 or step == trainer.max_steps):
            self.last_step = step
            with self.average.applied(module):
                self._look(trainer, module, step)

    def verdict(self) -> Verdict:
        """What the looks so far say; those of other clips than the base's say nothing."""
        held_out = self.losses["held_out"]
        steps = [step for step in sorted(held_out) if np.shape(held_out[step]) == np.shape(held_out[0])]
        groups: dict[str, np.ndarray] = {}
        for group, looks in self.losses.items():
            if all(step in looks and np.shape(looks[step]) == np.shape(looks[0]) for step in steps):
                groups[group] = np.array([looks[step] for step in steps], np.float64)
        history = LossHistory(tuple(steps), groups["held_out"], groups.get("training"), groups.get("generic"))
        return judged(history)

    def in_short(self) -> str:
        """The last look as JSON; empty before the first."""
        if not self.by_level:
            return ""
        ratio = round(self.ratios[max(self.ratios)], 4)
        return json.dumps({"held_out_loss_ratio": ratio, "by_noise_level": self.by_level, "step": max(self.ratios)})

    def _look(self, trainer: pl.Trainer, module: FineTuning, step: int) -> None:
        row: dict[str, float] = {}
        for group, clips in self.clips.items():
            with module.trainer.precision_plugin.forward_context():
                self.losses[group][step] = losses_on_grid(module.family, clips, self.sigmas).tolist()
            losses, base = (np.mean(self.losses[group].get(each, np.nan), axis=0) for each in (step, 0))
            ratios, prefix = losses / base, PREFIXES[group]
            row[f"{prefix}_ratio"] = float(ratios.mean())
            for sigma, loss, ratio in zip(self.sigmas, losses.tolist(), ratios.tolist(), strict=True):
                row |= {f"{prefix}_sigma_{sigma:g}": loss, f"{prefix}_ratio_{sigma:g}": ratio}
        self.ratios[step] = row["val_ratio"]
        self.by_level = {f"{sigma:g}": round(row[f"val_ratio_{sigma:g}"], 4) for sigma in self.sigmas}
        self.events.add(
            "look", step, **{name: row[name] for name in (f"{PREFIXES[group]}_ratio" for group in self.clips)}
        )
        for logger in trainer.loggers:
            logger.log_metrics(row, step)

    def state_dict(self) -> dict[str, Any]:
        """The base's losses, so that a resumed run keeps its yardstick."""
        kept = ("losses", "ratios", "last_step", "by_level")
        return {name: getattr(self, name) for name in kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored before on_train_start."""
        for name, value in state_dict.items():
            setattr(self, name, value)
        self.losses = {group: self.losses.get(group, {}) for group in self.clips}
