"""Config to objects: the only place where training reads a config."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from svdtrain.acceleration.compiled import compile_blocks
from svdtrain.acceleration.levers import accelerate
from svdtrain.acceleration.recompute import recompute
from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterInfo, AdapterSpec, HalfSpec
from svdtrain.config.schema import SourceConfig
from svdtrain.data.bad_samples import BadSamplePolicy
from svdtrain.data.datamodule import ClipDataModule
from svdtrain.data.manifest import WeightedSource
from svdtrain.data.shard_cache import ShardCache
from svdtrain.data.streaming import StreamingDataModule
from svdtrain.families.protocol import Request
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision
from svdtrain.generation.video_files import to_frames
from svdtrain.training.checkpoint import FolderCheckpoint
from svdtrain.training.encoding_cache import EncodingCache
from svdtrain.training.module import FineTuning
from svdtrain.training.optimization import OptimizerSettings
from svdtrain.training.precision import precision_plugin
from svdtrain.training.strategy import FlatReduction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers import Logger

    from svdtrain.config.schema import DataConfig, FitConfig, ModelConfig
    from svdtrain.families.protocol import FamilySpec, ModelFamily
    from svdtrain.types import ClipBatch

log = logging.getLogger(__name__)


def build_data(config: FitConfig) -> ClipDataModule:
    """The stream of clips of a run."""
    trainer = config.trainer
    return build_stream(config.data, config.model, config.seed, steps=trainer.max_steps, accumulate=trainer.accumulate)


def build_stream(data: DataConfig, model: ModelConfig, seed: int, *, steps: int, accumulate: int) -> ClipDataModule:
    """The stream of clips at the model's geometry."""
    assert data.source is not None
    mixed = [WeightedSource(one.source, one.weight) for one in data.source if isinstance(one, SourceConfig)]
    plain = data.source if isinstance(data.source, str) else [one for one in data.source if isinstance(one, str)]
    reads_text = spec_of(model.family).needs_text
    if data.trigger and not reads_text:
        log.warning("data.trigger has no effect: %s reads no text", model.name)
    module = StreamingDataModule if data.order == "stream" else ClipDataModule
    return module(
        mixed or plain,
        frames=model.frames,
        height=model.height,
        width=model.width,
        fps=data.fps,
        motion_bucket=None if data.motion_bucket == "clip" else data.motion_bucket,
        batch_size=data.batch_size,
        workers=data.workers,
        seed=seed,
        horizontal_flip=data.horizontal_flip,
        max_batches=steps * accumulate,
        shuffle_shards=data.shuffle_shards,
        buckets=data.buckets,
        multiple=model.size_multiple,
        stills=data.stills,
        bad=BadSamplePolicy(data.on_bad_sample == "skip", data.max_bad_fraction),
        batches_per_step=accumulate,
        verify=data.verify == "full",
        allow_change=data.allow_change,
        cache=ShardCache.at(data.shard_cache, data.shard_cache_gb),
        deadline=data.decode_deadline,
        windows=data.windows,
        captions=reads_text,
        trigger=data.trigger,
    )


def adapter_spec(config: FitConfig, spec: FamilySpec) -> AdapterSpec:
    """The halves that are adapted, by the family's presets or the user's own pattern."""
    adapter = config.adapter
    settings = {"spatial": adapter.spatial, "temporal": adapter.temporal}
    patterns = spec.targets[adapter.modules]
    halves = _halves(config, spec)
    if adapter.pattern is not None:
        halves = halves[:1]
    return AdapterSpec(
        kind=adapter.kind,
        blocks=tuple(adapter.blocks or ()),
        factor=adapter.factor,
        halves={
            half: HalfSpec(
                adapter.pattern or patterns[half],
                settings[half].rank,
                settings[half].alpha,
                settings[half].learning_rate,
            )
            for half in halves
        },
    )


def _halves(config: FitConfig, spec: FamilySpec) -> tuple[str, ...]:
    """The halves that are adapted; a network that has one only is adapted whole."""
    there = tuple(spec.targets[config.adapter.modules])
    wanted = there if config.adapter.targets == "both" else (config.adapter.targets,)
    return wanted if set(wanted) <= set(there) else there


def _motion_range(config: FitConfig, data: ClipDataModule) -> str:
    """least-most of the training clips' motion buckets, or the one number that all are given."""
    if config.data.motion_bucket != "clip":
        return str(config.data.motion_bucket)
    stated = data.manifest.train.number("motion")
    known = stated[~np.isnan(stated)]
    return f"{known.min():g}-{known.max():g}" if len(known) else "127"


def build_module(config: FitConfig, family: ModelFamily) -> FineTuning:
    """The step, with adapters in place or (kind: full) every weight trainable."""
    if config.adapter.kind == "full":
        family.denoiser.requires_grad_(True)
        halves: dict[str, str] = {}
        rates = {"all": config.optimizer.learning_rate}
    else:
        spec = adapter_spec(config, family.spec)
        halves = inject(family.denoiser, spec, seed=config.seed)
        _heard(halves, family.spec)
        rates = {half: settings.learning_rate for half, settings in spec.halves.items()}
    accelerate(family.denoiser, config.speed.levers)
    blocks, mode = family.spec.repeated_blocks, config.speed.mode
    if mode != "eager":
        compile_blocks(family.denoiser, blocks, mode)
    recompute(family.denoiser, config.memory.rung, blocks)
    optimizer = config.optimizer
    precision = choose_precision(config.trainer.precision, choose_device(config.trainer.device))
    return FineTuning(
        family,
        OptimizerSettings(
            rates,
            optimizer.betas,
            optimizer.weight_decay,
            optimizer.warmup_steps,
            optimizer.schedule,
            config.trainer.max_steps,
            optimizer.lora_plus_ratio or 1.0,
        ),
        halves,
        seed=config.seed,
        clips_per_step=config.data.batch_size * config.trainer.accumulate * config.trainer.ranks,
        condition_dropout=config.trainer.condition_dropout,
        image_dropout=config.model.image_dropout,
        cache=EncodingCache() if config.data.cache in ("auto", "memory") and config.data.order == "exact" else None,
        denoiser_dtype=DTYPES[precision],
        shard_base=config.memory.shard_base,
    )


def _heard(modules: Iterable[str], spec: FamilySpec) -> None:
    """Raise UsageError where a pattern matches nothing but modules that change nothing; warn of some."""
    names = list(modules)
    unheard = [name for name in names if spec.unheard and re.fullmatch(spec.unheard, name)]
    said = f"adapter.pattern: {len(unheard)} of the {len(names)} modules that it matches change nothing, such as {unheard[:1]}"
    if unheard and len(unheard) == len(names):
        raise UsageError(said, f"adapter.modules={' or '.join(spec.targets)}, or a pattern of others")
    if unheard:
        log.warning("%s: better left out", said)


def build_trainer(
    config: FitConfig, loggers: list[Logger], callbacks: list[Callback], about: Mapping[str, object] | None = None
) -> pl.Trainer:
    """Lightning with its own extras off: our callbacks save, validate and report. about: what checkpoints say of the run."""
    settings = config.trainer
    device = choose_device(settings.device)
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=settings.devices,
        num_nodes=settings.nodes,
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip,
        logger=loggers,
        callbacks=callbacks,
        plugins=[
            FolderCheckpoint(about),
            # Whatever started us: Lightning's own for Slurm would save within a handler.
            TorchElasticEnvironment() if settings.ranks > 1 else LightningEnvironment(),
            precision_plugin(choose_precision(settings.precision, device), device, autocast=config.autocast),
        ],
        strategy=FlatReduction() if settings.ranks > 1 else "auto",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        log_every_n_steps=settings.log_every,
    )
    # Its handlers exchange signals between ranks, and hang where one alone has got one; ours are in place already.
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def requests_from(model: ModelConfig, clips: Sequence[ClipBatch], steps: int, seed: int) -> list[Request]:
    """A request per clip (batches of one): its first frame, its fps and motion bucket; seeds count up."""
    return [
        Request(
            image=Image.fromarray(to_frames(clip.pixels_BTCHW[0])[0]),
            frames=model.frames,
            height=model.height,
            width=model.width,
            steps=steps,
            seed=seed + index,
            fps=round(float(clip.fps_B[0])),
            motion_bucket_id=round(float(clip.motion_bucket_B[0])),
            max_guidance=model.guidance,
            prompt="".join(clip.captions_B[:1]),
        )
        for index, clip in enumerate(clips)
    ]


def adapter_info(config: FitConfig, base_fingerprint: str, version: str, data: ClipDataModule) -> AdapterInfo:
    """The header of the adapter's file, but for its step and results. What is private in it stays in the run."""
    adapter = config.adapter
    halves = _halves(config, spec_of(config.model.family))
    reach = "both" if len(halves) == 2 or config.model.halves == 1 else halves[0]
    if config.data.source is None:
        raise UsageError("data.source is not set", "data.source=FOLDER")
    return AdapterInfo(
        model=config.model.name,
        family=config.model.family,
        architecture=spec_of(config.model.family).architecture,
        source=config.model.source or "",
        base=config.model.id or config.model.name,
        base_revision=config.model.revision or "",
        base_fingerprint=base_fingerprint,
        recipe=config.name,
        kind=adapter.kind,
        targets=" in ".join([adapter.pattern or f"{reach} {adapter.modules}", *(adapter.blocks or [])]),
        fps=str(config.data.fps or "clip"),
        motion_bucket=_motion_range(config, data),
        rank=" ".join(f"{half}={getattr(adapter, half).rank}" for half in halves),
        alpha=" ".join(f"{half}={getattr(adapter, half).alpha:g}" for half in halves),
        resolution=f"{config.model.width}x{config.model.height}",
        dataset=data.describe().fingerprint,
        data_source=str(config.data.source),
        version=version,
    )
