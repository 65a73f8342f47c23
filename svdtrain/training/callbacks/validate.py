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

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytorch_lightning as pl

    from svdtrain.evaluation.verdict import Verdict
    from svdtrain.training.callbacks.average import WeightAverage
    from svdtrain.training.module import FineTuning
    from svdtrain.types import ClipBatch


class SigmaGridValidation(Callback):
    """Logs val_sigma_S (loss), val_ratio_S and val_ratio (adapter over base) every few optimizer steps."""

    def __init__(self, clips: Sequence[ClipBatch], sigmas: Sequence[float], every: int, average: WeightAverage) -> None:
        self.clips: Sequence[ClipBatch | PreparedClip] = clips
        self.sigmas, self.every, self.average = sigmas, every, average
        self.losses: dict[int, list[list[float]]] = {}
        """Of each look, by step (0: the base), clip and noise level."""
        self.ratios: dict[int, float] = {}
        self.last_step = 0
        self.by_level: dict[str, float] = {}
        """Of the last look: sigma -> held-out loss as a ratio to the base's."""

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """The base's losses: an adapter starts as the identity. Clips are encoded once for all looks."""
        self.clips = [clip if isinstance(clip, PreparedClip) else prepare(module.family, clip) for clip in self.clips]
        if not self.losses:
            self._look(trainer, module, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """On the grid of steps, and at the last."""
        step = trainer.global_step
        if step != self.last_step and (step % self.every == 0 or step == trainer.max_steps):
            self.last_step = step
            with self.average.applied(module):
                self._look(trainer, module, step)

    def verdict(self) -> Verdict:
        """What the looks so far say, of held-out clips alone."""
        shape = np.shape(self.losses[0])
        looks = {step: losses for step, losses in sorted(self.losses.items()) if np.shape(losses) == shape}
        return judged(LossHistory(tuple(looks), np.array(list(looks.values()), np.float64)))

    def in_short(self) -> str:
        """The last look as JSON; empty before the first."""
        if not self.by_level:
            return ""
        ratio = round(self.ratios[max(self.ratios)], 4)
        return json.dumps({"held_out_loss_ratio": ratio, "by_noise_level": self.by_level, "step": max(self.ratios)})

    def _look(self, trainer: pl.Trainer, module: FineTuning, step: int) -> None:
        with module.trainer.precision_plugin.forward_context():
            self.losses[step] = losses_on_grid(module.family, self.clips, self.sigmas).tolist()
        losses, base = (np.mean(self.losses[each], axis=0).tolist() for each in (step, 0))
        ratios = [loss / own for loss, own in zip(losses, base, strict=True)]
        self.ratios[step] = sum(ratios) / len(ratios)
        self.by_level = {f"{sigma:g}": round(r, 4) for sigma, r in zip(self.sigmas, ratios, strict=True)}
        row = {"val_ratio": self.ratios[step]}
        for sigma, loss, ratio in zip(self.sigmas, losses, ratios, strict=True):
            row |= {f"val_sigma_{sigma:g}": loss, f"val_ratio_{sigma:g}": ratio}
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
