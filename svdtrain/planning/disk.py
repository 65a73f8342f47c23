"""Bytes that a fit will write, known before any weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svdtrain.config.schema import FitConfig
    from svdtrain.families.protocol import ModelFamily

SMALL = 2_000_000
"""Records, metrics, headers, and a margin."""
PAGE = 15_000_000
"""A report at most."""
COMPRESSED = 0.25
"""Of a video's bytes, at most what its file takes."""


def bytes_of_fit(config: FitConfig, family: ModelFamily) -> int:
    """The most that a run folder holds at a time: checkpoints and one that is being written, adapters, samples.

    family: as it is trained; its weights need not be there.
    """
    trainer, looks = config.trainer, config.validation
    parameters = list(family.denoiser.parameters())
    trained = 4 * sum(p.numel() for p in parameters if p.requires_grad)
    video = 3 * config.model.frames * config.model.height * config.model.width
    checkpoint = trained * (3 + (config.optimizer.ema_decay is not None)) + looks.sample_inputs * video
    kept = trainer.keep_checkpoints + trainer.keep_best + 1
    saves = trainer.max_steps // trainer.save_every + 1
    result = 4 * sum(p.numel() for p in parameters) if config.adapter.kind == "full" else trained
    others = trainer.keep_best + saves * trainer.keep_adapters  # adapters beside the newest, and the one being written
    results = 2 + others * (config.adapter.kind != "full")
    arms = 1 + (config.optimizer.ema_decay is not None)
    shown = looks.sample_inputs * (arms * (trainer.max_steps // looks.sample_every + 1) + 1 + 4 * (2 + arms))
    videos = shown * COMPRESSED * video  # the last: before and after, four times
    page = min(PAGE, videos * 4 / 3 + SMALL) * trainer.report
    return round(min(kept, saves + 1) * checkpoint + results * result + videos + page + SMALL)
