"""Numbers guarded: no loss or gradient that is not finite reaches a weight, and a loss that jumps is told."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

from svdtrain.foundation.errors import NumericError
from svdtrain.reporting.run_events import SILENT
from svdtrain.training.module import LEVEL_EDGES

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from svdtrain.reporting.run_events import RunEvents
    from svdtrain.training.module import ClipLoss, FineTuning

log = logging.getLogger(__name__)

WINDOW = 100
"""Optimizer steps within which skipped ones are counted."""
MOST_OVERFLOWS = 20
"""In a row: a loss scale that has been halved so often will not be found any more."""
SPIKE, ENOUGH, MEMORY = 10.0, 20, 0.98
"""A spike is a loss so many times the usual of its noise level, which so many clips have to show first; how long they count."""
MOST_TOLD = 3


class NumericGuard(Callback):
    """`raise`: such a step ends the run before it is taken. `skip`: it is left out, `most` times in any 100 steps."""

    def __init__(self, policy: str, most: int, events: RunEvents = SILENT) -> None:
        self.policy, self.most, self.events = policy, most, events
        self.skipped: list[int] = []
        """Optimizer steps that were left out."""
        self.scales: list[float] = []
        """Of fp16's loss, at the overflows in a row."""
        self.spikes = 0
        self.last_spike = ""
        self._seen_step = 0
        self._usual: dict[int, tuple[int, float]] = {}
        """Of each noise level: clips seen, and the running mean of their log loss."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """The last moment before the weights change. Gradients are those of all ranks: all decide alike."""
        step, fault = trainer.global_step, module.read(module.flat.gradients.norm())
        if not fault and not math.isfinite(module.gradient_norm):
            if scaler := getattr(trainer.precision_plugin, "scaler", None):
                self._overflowed(scaler.get_scale(), step)  # such steps it skips by itself
                return
            fault = NumericError(
                f"the gradient at step {step} is {module.gradient_norm}", "lower optimizer.learning_rate"
            )
        self.scales.clear()
        if not fault:
            return
        if self.policy == "raise":
            raise fault
        self.skipped.append(step)
        recent = sum(step - WINDOW < one for one in self.skipped)
        if recent > self.most:
            raise NumericError(f"{recent} of the last {WINDOW} steps were skipped; now {fault.message}", fault.hint)
        log.warning("step %d is skipped: %s", step, fault.message)
        self.events.add("skip", step, why=fault.message)
        module.flat.leave_out()

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """Once an optimizer step, compare each clip's loss with the usual of its noise level."""
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        for clip in module.last_clips:
            if not 0 < clip.loss < math.inf:
                continue
            level = bisect_right(LEVEL_EDGES, clip.sigma)
            seen, usual = self._usual.get(level, (0, math.log(clip.loss)))
            if seen >= ENOUGH and math.log(clip.loss) - usual > math.log(SPIKE):
                self._spiked(clip, trainer.global_step, math.exp(usual))
                continue
            share = max(1 - MEMORY, 1 / (seen + 1))
            self._usual[level] = (seen + 1, usual + share * (math.log(clip.loss) - usual))

    def _spiked(self, clip: ClipLoss, step: int, usual: float) -> None:
        self.spikes += 1
        self.events.add("spike", step, clip=clip.key, sigma=clip.sigma, loss=clip.loss, usual=usual)
        name = f"clip '{clip.key}'" if clip.key else f"a clip of rank {clip.rank}"
        self.last_spike = (
            f"the loss of {name} at step {step}, sigma {clip.sigma:.3g}, is {clip.loss:.3g}: "
            f"{clip.loss / usual:.0f} times the usual there"
        )
        if self.spikes <= MOST_TOLD:
            log.warning("%s", self.last_spike)

    def _overflowed(self, scale: float, step: int) -> None:
        self.scales.append(scale)
        if len(self.scales) > MOST_OVERFLOWS:
            trace = " ".join(f"{one:g}" for one in (self.scales[0], self.scales[len(self.scales) // 2], scale))
            raise NumericError(
                f"fp16 overflowed at {len(self.scales)} steps up to {step}, with loss scales {trace}",
                "trainer.precision=bf16-mixed, or 32",
            )

    def state_dict(self) -> dict[str, Any]:
        """So that a resumed run counts on."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored on resume."""
        self.skipped = list(state_dict["skipped"])
