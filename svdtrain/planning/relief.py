"""What to change where memory ran out: settings that are predicted to need less, the cheapest first."""

from __future__ import annotations

import gc
import logging
import traceback
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from svdtrain.families.build import build_family
from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.hardware import choose_device
from svdtrain.foundation.out_of_memory import LESS, in_use, shown_size
from svdtrain.planning.training_step import predict_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from svdtrain.config.schema import FitConfig
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.planning.memory import MemoryPrediction
    from svdtrain.planning.training_step import Adapt, Sizes

MOST_MENDS = 3
WORTH_IT = 0.05
"""Of the peak: a mend that saves less is none."""

Changes = dict[str, Any]
"""Key -> value."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mend:
    """Other settings, and what they are predicted to need."""

    words: str
    """KEY=VALUE, one or two."""
    peak: int


@dataclass(frozen=True)
class Foretold:
    """What settings are predicted to need, and what would need less."""

    peak: int
    mends: tuple[Mend, ...]


def explain(error: BaseException, config: FitConfig, ask: Callable[[], Foretold], *, step: int) -> SystemFault:
    """What to say of memory that ran out in a fit: how much was predicted, how much is in use, and three mends.

    What the failed step holds is let go first. `ask` finds out what would need less; it may fail.
    """
    used = in_use(error, choose_device(config.trainer.device))
    if any(frame.f_code.co_name == "sample" for frame, _ in traceback.walk_tb(error.__traceback__)):
        less = "validation.sample_inputs=0 leaves samples out; fewer model.frames, or a smaller model.height and width"
        return SystemFault(f"out of memory while sampling at step {step}: {used}", less)
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    log.warning("out of memory; looking for settings that need less")
    try:
        found = ask()
    except Exception as failure:  # whatever it is, it must not hide what has happened
        log.warning("what would need less is not known: %s: %s", type(failure).__name__, failure)
        return SystemFault(f"out of memory at step {step}: {used}", LESS)
    hint = "; ".join(f"{mend.words} ({shown_size(mend.peak)})" for mend in found.mends)
    return SystemFault(f"out of memory at step {step}: predicted {shown_size(found.peak)}, {used}", hint or LESS)


def foretell(
    config: FitConfig, adapt: Adapt, *, sizes: Sizes = (), encoded_ahead: bool = False
) -> Iterator[int | Mend]:
    """The peak that is predicted now, and then up to three mends, each as soon as it is known. As predict_fit has them."""
    now = predict_fit(config, adapt, sizes=sizes, encoded_ahead=encoded_ahead)
    yield now.peak
    yield from islice(mends(config, adapt, now, sizes=sizes, encoded_ahead=encoded_ahead), MOST_MENDS)


def mends(
    config: FitConfig,
    adapt: Adapt,
    now: MemoryPrediction,
    *,
    sizes: Sizes = (),
    encoded_ahead: bool = False,
    on_gpu: bool | None = None,
) -> Iterator[Mend]:
    """Changes that save at least a twentieth of the peak that is predicted now, each by itself. on_gpu: None, as it is here."""
    on_gpu = choose_device(config.trainer.device) == "cuda" if on_gpu is None else on_gpu
    family = build_family(config.model, blank=True)
    for changes in candidates(config, family, now, encoded_ahead=encoded_ahead, on_gpu=on_gpu):
        changed = config
        for key, value in changes.items():
            changed = _changed(changed, key, value)
        ahead, of = encoded_ahead or changed.data.cache == "disk", sizes if changed.data.buckets else ()
        peak = predict_fit(changed, adapt, sizes=of, encoded_ahead=ahead, on_gpu=on_gpu).peak
        if peak < (1 - WORTH_IT) * now.peak:
            yield Mend(
                " ".join(f"{key.removesuffix('.rung')}={_spelled(value)}" for key, value in changes.items()), peak
            )


def candidates(
    config: FitConfig, family: ModelFamily, now: MemoryPrediction, *, encoded_ahead: bool, on_gpu: bool
) -> Iterator[Changes]:
    """Changes that may need less: from what changes no result to what changes what is learnt, and of what."""
    batch, adapter = config.data.batch_size, config.adapter
    if config.memory.rung in ("auto", "none", "feed_forward"):
        yield {"memory.rung": "blocks"}
    if batch > 1:
        part = next(divisor for divisor in range(2, batch + 1) if batch % divisor == 0)
        yield {"data.batch_size": batch // part, "trainer.accumulate": config.trainer.accumulate * part}
    if on_gpu and not encoded_ahead and config.data.order == "exact":  # then encoders rest in the CPU's memory
        yield {"data.cache": "disk"}
    if adapter.kind == "full":
        yield {"adapter.kind": "lora"}
    elif now.trained + now.gradients + now.optimizer > 2 * WORTH_IT * now.peak:
        yield {f"adapter.{half}.rank": max(1, getattr(adapter, half).rank // 2) for half in ("spatial", "temporal")}
    if adapter.kind != "full" and adapter.pattern is None and adapter.modules == "attention_and_feed_forward":
        yield {"adapter.modules": "attention"}
    yield from _smaller_clips(config, family)


def _smaller_clips(config: FitConfig, family: ModelFamily) -> Iterator[Changes]:
    """Half the frames, or sides of seven tenths, where the checkpoint can do them."""
    model = config.model
    if config.data.buckets:
        yield {"data.buckets": False}
        return
    fewer = family.nearest_size(max(2, (model.frames + 1) // 2), model.height, model.width).frames
    fewer = (fewer - 1) // model.frame_multiple * model.frame_multiple + 1
    if 2 <= fewer < model.frames:
        yield {"model.frames": fewer}
    step = model.size_multiple
    height, width = (max(step, side * 7 // 10 // step * step) for side in (model.height, model.width))
    near = family.nearest_size(model.frames, height, width)
    can = not model.fixed_size and (near.frames, near.height, near.width) == (model.frames, height, width)
    if can and (height, width) != (model.height, model.width):
        yield {"model.height": height, "model.width": width}


def _changed(settings: Any, key: str, value: object) -> Any:  # noqa: ANN401
    name, _, rest = key.partition(".")
    return settings.model_copy(update={name: _changed(getattr(settings, name), rest, value) if rest else value})


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
