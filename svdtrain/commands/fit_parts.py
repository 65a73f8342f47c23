"""What a fit does besides training: it looks, guards, compares and saves."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING

import svdtrain
from svdtrain.adapters.files import save_adapter
from svdtrain.adapters.inject import adapter_layers, adapter_parameters, peft_config
from svdtrain.foundation.files import replacing_files
from svdtrain.launching.control import Control
from svdtrain.training import build
from svdtrain.training.callbacks.average import WeightAverage
from svdtrain.training.callbacks.early import EarlyStop
from svdtrain.training.callbacks.guard import NumericGuard
from svdtrain.training.callbacks.progress import StepProgress
from svdtrain.training.callbacks.requests import Requests
from svdtrain.training.callbacks.same_weights import SameWeights
from svdtrain.training.callbacks.sample import SampleVideos
from svdtrain.training.callbacks.save import SaveCheckpoints
from svdtrain.training.callbacks.validate import SigmaGridValidation

if TYPE_CHECKING:
    from pathlib import Path

    from pytorch_lightning.callbacks import Callback
    from rich.console import Console

    from svdtrain.adapters.spec import AdapterInfo
    from svdtrain.config.schema import FitConfig
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.launching.notice import Notice
    from svdtrain.reporting.run_record import RunRecord
    from svdtrain.types import ClipBatch


@dataclass(frozen=True)
class Parts:
    """The callbacks that have something to say when the run is over, and those that have not."""

    guard: NumericGuard
    progress: StepProgress
    average: WeightAverage
    validation: SigmaGridValidation
    requests: Requests
    early: EarlyStop
    samples: SampleVideos
    same: SameWeights
    save: SaveCheckpoints

    @property
    def in_order(self) -> list[Callback]:
        """Looks, then what decides whether the run stops here, then what is kept: nothing that ranks do not agree on."""
        return [getattr(self, field.name) for field in fields(self)]


def assemble(
    config: FitConfig,
    data: ClipDataModule,
    family: ModelFamily,
    console: Console,
    record: RunRecord,
    notice: Notice,
    base: str,
) -> Parts:
    """As the config has them. base: the fingerprint of the frozen weights."""
    trainer, settings, events = config.trainer, config.validation, record.events
    held_out = data.held_out(settings.clips)
    groups = {"held_out": held_out, "training": data.training(settings.training_clips), "generic": _generic(config)}
    looks = held_out[: settings.sample_inputs]
    truths = [build.to_frames(clip.pixels_BTCHW[0]) for clip in looks]
    shown = build.requests_from(config.model, looks, settings.sampling_steps, settings.sample_seed)
    average = WeightAverage(config.optimizer.ema_decay)
    clips = {group: clips for group, clips in groups.items() if clips}
    validation = SigmaGridValidation(clips, settings.sigmas, settings.every, average, events)
    requests = Requests(notice, Control(record.run_dir), events)
    about = build.adapter_info(config, base, svdtrain.__version__, data)
    return Parts(
        guard=NumericGuard(trainer.on_nonfinite, trainer.max_skipped, events),
        progress=StepProgress(console, trainer.log_every, (record.fields.get("plan") or {}).get("step_seconds")),
        average=average,
        validation=validation,
        requests=requests,
        early=EarlyStop(validation.ratios, trainer.stop_early, requests.wanted),
        samples=SampleVideos(record.run_dir, shown, truths, settings.sample_every, average, requests.wanted, events),
        same=SameWeights(trainer.compare_every, trainer.save_every),
        save=SaveCheckpoints(
            record.run_dir,
            trainer.save_every,
            trainer.keep_checkpoints,
            validation.ratios if trainer.keep_best else None,
            average,
            requests.wanted,
            events,
            partial(_write_result, config, family, about, validation, record.run_dir),
        ),
    )


def _generic(config: FitConfig) -> list[ClipBatch]:
    """Clips of anything else, whose loss says what is forgotten."""
    settings = config.validation
    if settings.generic is None:
        return []
    plain = {"order": "exact", "buckets": False, "stills": False, "windows": None, "cache": "none"}
    data = config.data.model_copy(update={"source": settings.generic, **plain})
    return build.build_stream(data, config.model, config.seed, steps=1, accumulate=1).training(settings.generic_clips)


ONE_FILE = "1TB"
"""Which is replaced whole; of several, some could be of an earlier step."""


def _write_result(
    config: FitConfig,
    family: ModelFamily,
    about: AdapterInfo,
    validation: SigmaGridValidation,
    run_dir: Path,
    step: int,
    *,
    best: bool = False,
) -> None:
    """RUN/adapter (and RUN/adapters/step-000500), or RUN/adapter_best; RUN/denoiser after full fine-tuning."""
    if config.adapter.kind == "full":
        if not best:
            with replacing_files(run_dir / "denoiser") as staged:
                family.denoiser.save_pretrained(staged, max_shard_size=ONE_FILE)  # type: ignore[operator]
        return
    info = replace(about, steps=str(step), results=validation.in_short())
    settings = peft_config(build.adapter_spec(config, family.spec)).to_dict()
    settings["target_modules"] = sorted({name for name, _ in adapter_layers(family.denoiser)})
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in adapter_parameters(family.denoiser).items()}
    kept = ["adapter", *[f"adapters/step-{step:06d}"] * config.trainer.keep_adapters]
    for folder in ["adapter_best"] if best else kept:
        save_adapter(run_dir / folder, tensors, settings, info)
