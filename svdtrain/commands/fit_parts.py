"""What a fit does besides training: it looks, guards, compares and saves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import svdtrain
from svdtrain.adapters.files import save_adapter
from svdtrain.adapters.inject import adapter_layers, adapter_parameters, peft_config
from svdtrain.training import build
from svdtrain.training.callbacks.average import WeightAverage
from svdtrain.training.callbacks.guard import NumericGuard
from svdtrain.training.callbacks.progress import StepProgress
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
    from svdtrain.reporting.run_record import RunRecord


@dataclass(frozen=True)
class Parts:
    """The callbacks that have something to say when the run is over, and those that have not."""

    guard: NumericGuard
    progress: StepProgress
    average: WeightAverage
    validation: SigmaGridValidation
    samples: SampleVideos
    same: SameWeights
    save: SaveCheckpoints

    @property
    def looks(self) -> list[Callback]:
        """Whatever sees a step before it is decided whether the run stops there."""
        return [self.guard, self.progress, self.average, self.validation, self.samples]

    @property
    def saves(self) -> list[Callback]:
        """What comes last. Nothing is saved that ranks do not agree on."""
        return [self.same, self.save]


def assemble(
    config: FitConfig, data: ClipDataModule, family: ModelFamily, console: Console, record: RunRecord, base: str
) -> Parts:
    """As the config has them. base: the fingerprint of the frozen weights."""
    trainer, settings = config.trainer, config.validation
    held_out = data.held_out(settings.clips)
    looks = held_out[: settings.sample_inputs]
    truths = [build.to_frames(clip.pixels_BTCHW[0]) for clip in looks]
    requests = build.requests_from(config.model, looks, settings.sampling_steps, settings.sample_seed)
    average = WeightAverage(config.optimizer.ema_decay)
    validation = SigmaGridValidation(held_out, settings.sigmas, settings.every, average)
    about = build.adapter_info(config, base, svdtrain.__version__, data)
    return Parts(
        guard=NumericGuard(trainer.on_nonfinite, trainer.max_skipped),
        progress=StepProgress(console, trainer.log_every, (record.fields.get("plan") or {}).get("step_seconds")),
        average=average,
        validation=validation,
        samples=SampleVideos(record.run_dir, requests, truths, settings.sample_every, average),
        same=SameWeights(trainer.compare_every, trainer.save_every),
        save=SaveCheckpoints(
            record.run_dir,
            trainer.save_every,
            trainer.keep_checkpoints,
            validation.ratios if trainer.keep_best else None,
            average,
            partial(_write_result, config, family, about, validation, record.run_dir),
        ),
    )


def _write_result(
    config: FitConfig,
    family: ModelFamily,
    about: AdapterInfo,
    validation: SigmaGridValidation,
    run_dir: Path,
    step: int,
) -> None:
    """RUN/adapter (and RUN/adapters/step-000500), or RUN/denoiser after full fine-tuning."""
    if config.adapter.kind == "full":
        family.denoiser.save_pretrained(run_dir / "denoiser")  # type: ignore[operator]
        return
    info = replace(about, steps=str(step), results=validation.in_short())
    settings = peft_config(build.adapter_spec(config, family.spec)).to_dict()
    settings["target_modules"] = sorted({name for name, _ in adapter_layers(family.denoiser)})
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in adapter_parameters(family.denoiser).items()}
    kept = [run_dir / "adapters" / f"step-{step:06d}"] if config.trainer.keep_adapters else []
    for folder in (run_dir / "adapter", *kept):
        save_adapter(folder, tensors, settings, info)
