"""The peak of a fit's training step, from its settings and its model's configuration files."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from svdtrain.acceleration.recompute import recompute
from svdtrain.acceleration.sharding import bytes_elsewhere
from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.families.build import build_family
from svdtrain.foundation.garbage import uncollected
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision
from svdtrain.foundation.seeding import Draws
from svdtrain.planning.costs import Costs
from svdtrain.planning.memory import TrainedDenoiser, without_content
from svdtrain.types import ClipBatch, EncodedClips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from svdtrain.config.schema import FitConfig
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.planning.memory import MemoryPrediction

    Adapt = Callable[[FitConfig, ModelFamily], object]
    """Makes of a family's denoiser what is trained: the adapter in place, blocks that are recomputed."""
    Sizes = Sequence[tuple[int, int, int]]
    """Frames, heights and widths of clips."""


def blank_family(config: FitConfig, adapt: Adapt) -> ModelFamily:
    """The model as it is trained, on the meta device. ModelError where its configuration files are not there."""
    family = build_family(config.model, blank=True)
    with torch.device("meta"):
        adapt(config, family)
    return family


def predict_fit(
    config: FitConfig, adapt: Adapt, *, sizes: Sizes = (), encoded_ahead: bool = False, on_gpu: bool | None = None
) -> MemoryPrediction:
    """The peak of a training step with these settings, encoders and all. Seconds of work; no weights are read.

    sizes: what the clips' are, where they are not all the model's: the largest counts. encoded_ahead: clips come from
    a cache on disk. Not in it: samples, validation, and what memory.py leaves out.
    """
    rung = [config.memory.rung]
    [(_, predicted)] = predict_rungs(config, adapt, rung, sizes=sizes, encoded_ahead=encoded_ahead, on_gpu=on_gpu)
    return predicted


def predict_rungs(
    config: FitConfig,
    adapt: Adapt,
    rungs: Iterable[str],
    *,
    sizes: Sizes = (),
    encoded_ahead: bool = False,
    on_gpu: bool | None = None,
    costs: dict[str, Costs] | None = None,
    family: ModelFamily | None = None,
) -> Iterator[tuple[str, MemoryPrediction]]:
    """The same for each of these rungs, whatever the settings' is; each is worked out when it is asked for.

    What offload lets wait in the CPU's memory is not in a GPU's figure. on_gpu: None, as it is here. costs: gets the operations
    of each rung's step, and, apart from them, of encoding its clips as ENCODING. family: of blank_family and plain settings,
    where it is there; it is used up.
    """
    family, precision = family or blank_family(plain(config), adapt), choose_precision_of(config)
    for tensor in (*family.denoiser.parameters(), *family.denoiser.buffers()):
        if not tensor.requires_grad and tensor.is_floating_point():
            tensor.data = tensor.data.to(DTYPES[precision])
    networks = nn.ModuleList([family.denoiser, *family.frozen().values()])
    with uncollected(stays=False), without_content(networks):
        on_gpu = choose_device(config.trainer.device) == "cuda" if on_gpu is None else on_gpu
        denoiser, beside = TrainedDenoiser(family.denoiser), _beside(config, family, at_rest=encoded_ahead and on_gpu)
        autocast = DTYPES[precision] if precision != "32" and config.autocast else None
        size, work = _largest(config, sizes), Costs()
        casts = torch.autocast("cpu", autocast, enabled=autocast is not None)
        with denoiser.counted(beside, work) as live, torch.no_grad(), casts:
            encoded = family.encode_clips(_batch(config, size))
        encoding = live.most()
        if costs is not None:
            costs[ENCODING] = work
            work.kept = sum(part.numel() for part in vars(encoded).values())
        about = {name: (part.shape, part.dtype) for name, part in vars(encoded).items()}
        del encoded

        def loss() -> Tensor:
            encoded = EncodedClips(**{name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in about.items()})
            return _loss(family, _batch(config, size, encoded, whole=not encoded_ahead), config)

        for rung in rungs:
            waits = ELSEWHERE if on_gpu else None  # on a CPU what waits in its memory waits here
            patches = recompute(family.denoiser, rung, family.spec.repeated_blocks, waits)
            watch = costs.setdefault(rung, Costs()) if costs is not None else None
            predicted = denoiser.step(loss, beside=beside, autocast=autocast, costs=watch)
            patches.close()
            if not encoded_ahead:
                predicted = max(predicted, encoding, key=lambda moment: moment.peak)
            if config.memory.shard_base:
                blocks, each = family.spec.repeated_blocks, DTYPES[precision].itemsize
                elsewhere = bytes_elsewhere(family.denoiser, blocks, each, config.trainer.devices)
                predicted = replace(predicted, weights=predicted.weights - elsewhere)
            yield rung, predicted


def plain(config: FitConfig) -> FitConfig:
    """Without what is put on the step last: no block is recomputed or compiled."""
    memory, speed = config.memory.model_copy(update={"rung": "none"}), config.speed.model_copy(update={"mode": "eager"})
    return config.model_copy(update={"memory": memory, "speed": speed})


ENCODING = "encoding"
ELSEWHERE = (
    lambda tensor: (tensor.shape, tensor.stride(), tensor.dtype),
    lambda about: torch.empty_strided(about[0], about[1], dtype=about[2]),
)
"""To another memory and back, of tensors without content: nothing stays here meanwhile."""


def _largest(config: FitConfig, sizes: Sizes) -> tuple[int, int, int]:
    return max(sizes, key=math.prod, default=(config.model.frames, config.model.height, config.model.width))


def _beside(config: FitConfig, family: ModelFamily, *, at_rest: bool) -> list[Tensor]:
    """What stays in memory beside the denoiser. at_rest: what no step asks for waits elsewhere."""
    resting = {id(tensor) for part in family.idle() if at_rest for tensor in _tensors(part)}
    beside = [t for part in family.frozen().values() for t in _tensors(part) if id(t) not in resting]
    if config.optimizer.ema_decay:
        beside += [torch.empty_like(p) for p in family.denoiser.parameters() if p.requires_grad]
    return beside


def choose_precision_of(config: FitConfig) -> str:
    """The precision that a fit with these settings trains in, here."""
    return choose_precision(config.trainer.precision, choose_device(config.trainer.device))


def _batch(
    config: FitConfig, size: tuple[int, int, int], encoded: EncodedClips | None = None, *, whole: bool = True
) -> ClipBatch:
    """whole: with all frames, not the first alone."""
    frames, height, width = size
    count = config.data.batch_size
    return ClipBatch(
        torch.zeros(count, frames if whole else 1, 3, height, width),
        torch.full((count,), 8.0),
        torch.full((count,), 127.0),
        tuple(map(str, range(count))),
        tuple(range(count)),
        ("",) * count,
        encoded,
    )


def _loss(family: ModelFamily, batch: ClipBatch, config: FitConfig) -> Tensor:
    """What the training step does, but for what it records."""
    draws = Draws(0, batch.positions_B)
    with torch.no_grad():
        encoded = batch.encoded or family.encode_clips(batch)
        conditions = family.encode_conditions(batch, encoded, draws)
        posterior = family.posterior(encoded)
        latents_BTCHW = posterior.sample(draws.normal("posterior", tuple(posterior.mean_BTCHW.shape[1:])))
    noise_BTCHW = draws.normal("noise", tuple(latents_BTCHW.shape[1:]))
    noisy = family.objective.corrupt(latents_BTCHW, noise_BTCHW, family.objective.levels(draws.stratified("level")))
    conditions = conditions.dropped(draws.uniform("dropout") < config.trainer.condition_dropout)
    error_B = mean_error_per_clip(family.denoise(noisy, conditions), noisy.target_BTCHW)
    return (error_B * noisy.weight_B).mean()


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
