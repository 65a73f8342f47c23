"""What a fit says before it begins and when it is over."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, Any

from svdtrain.acceleration.attention import kernel_at_work
from svdtrain.acceleration.sharding import bytes_of_blocks, gathered_per_batch
from svdtrain.families.registry import spec_of
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision, is_first_rank
from svdtrain.foundation.out_of_memory import shown_size
from svdtrain.training.strategy import sent_per_step

if TYPE_CHECKING:
    from rich.console import Console

    from svdtrain.config.schema import FitConfig
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.planning.ladder import Rung
    from svdtrain.reporting.run_record import RunRecord
    from svdtrain.training.callbacks.validate import SigmaGridValidation

log = logging.getLogger(__name__)


def introduce(
    console: Console,
    config: FitConfig,
    family: ModelFamily,
    data: ClipDataModule,
    record: RunRecord,
    rung: Rung | None,
) -> None:
    """What is trained, on what, on which rung of memory (where that was chosen), and where it is kept."""
    if config.adapter.kind != "full" and config.adapter.targets not in (
        "both",
        *family.spec.targets[config.adapter.modules],
    ):
        log.warning("%s has no %s half of its own: all is adapted", config.model.name, config.adapter.targets)
    trained = sum(p.numel() for p in family.denoiser.parameters() if p.requires_grad)
    summary = data.describe()
    clips = (
        "clips as they come (not exactly resumable)" if summary.train_clips is None else f"{summary.train_clips} clips"
    )
    console.print(
        f"{config.name}: {config.model.name} ({config.model.licence}), {trained:,} trained parameters; "
        f"{clips} and {summary.held_out_clips} held out",
        soft_wrap=True,
    )
    if latents := data.stream.latents:
        console.print(f"encoded before, in {latents.folder}", highlight=False, soft_wrap=True)
    if rung and rung.predicted:
        console.print(rung.why, highlight=False, soft_wrap=True)
    _speed(console, config, family, trained)
    console.print(f"run folder {record.run_dir}", highlight=False)


def _against(plan: dict[str, Any], fields: dict[str, Any]) -> str:
    """What was predicted, and what it came to."""
    each = fields["speed"]["seconds_per_batch"]
    peak, real = shown_size(plan["peak_bytes"]), fields["speed"]["peak_bytes"]
    memory = f"{peak}, really {shown_size(real)}" if real else peak
    time = (
        f"{predicted:.2f} s a batch, really {each:.2f}"
        if (predicted := plan["step_seconds"])
        else f"{each:.2f} s a batch"
    )
    return f"predicted      {memory}; {time}"


def _speed(console: Console, config: FitConfig, family: ModelFamily, trained: int) -> None:
    """What decides how fast it goes, where that is not as usual."""
    model, device = config.model, choose_device(config.trainer.device)
    dtype = DTYPES[choose_precision(config.trainer.precision, device)]
    if device == "cuda" and is_first_rank():
        tokens = (model.height // 8) * (model.width // 8)
        kernel = kernel_at_work(tokens, 64, dtype, device, config.speed.attention)
        console.print(f"attention      {kernel}", highlight=False)
    if config.speed.fused_lora and config.autocast and config.adapter.kind != "full":
        console.print(
            f"fused_lora     not for adapter.kind={config.adapter.kind}, which peft computes", highlight=False
        )
    if (ranks := config.trainer.ranks) > 1:
        sent = f"{sent_per_step(4 * trained, ranks) / 1e6:.1f} MB of gradients"
        if config.memory.shard_base:
            shared = bytes_of_blocks(family.denoiser, family.spec.repeated_blocks, dtype.itemsize)
            base = config.trainer.accumulate * gathered_per_batch(shared, config.trainer.devices)
            sent += f" and {base / 1e6:,.1f} MB of the base"
        console.print(f"ranks          {ranks}; each sends {sent} a step", highlight=False)


def tell(
    console: Console, config: FitConfig, record: RunRecord, validation: SigmaGridValidation, *, stopped: bool
) -> None:
    """How to go on, where it was stopped; else what has come of it and where it is."""
    run_dir, speed = record.run_dir, record.fields["speed"]
    if bad := record.fields["bad_samples"]:
        counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in bad.items())
        console.print(f"bad samples    replaced: {counts}; see {run_dir / 'bad_samples.jsonl'}", highlight=False)
    if skipped := record.fields["skipped_steps"]:
        console.print(
            f"skipped steps  {len(skipped)}, the last {skipped[-1]}: loss or gradient was not finite", highlight=False
        )
    if stopped:
        console.print(
            f"stopped at step {record.fields['step']}; go on with: python -m svdtrain fit "
            f"{shlex.join([*record.fields['overrides'], f'resume={run_dir}'])}",
            highlight=False,
            soft_wrap=True,
        )
        return
    ratio = validation.ratios[max(validation.ratios)]
    console.print(
        f"held-out loss is {ratio:.2f} of the base's; {speed['steps_per_second']:.2f} steps/s, "
        f"{speed['clips_per_second']:.2f} clips/s, {speed['share_outside_denoiser']:.0%} of the time outside the denoiser",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"verdict        {record.fields['verdict']['sentence']}", highlight=False, soft_wrap=True)
    if plan := record.fields.get("plan"):
        console.print(_against(plan, record.fields), highlight=False)
    if config.adapter.kind == "full":
        console.print(f"denoiser       {run_dir / 'denoiser'}", highlight=False)
        return
    if (run_dir / "before_after.mp4").is_file():
        console.print(f"before/after   {run_dir / 'before_after.mp4'}", highlight=False)
        console.print(f"contact sheet  {run_dir / 'contact_sheet.png'}", highlight=False)
    console.print(f"adapter        {run_dir / 'adapter' / 'adapter_model.safetensors'}", highlight=False)
    spec = spec_of(config.model.family)
    words = [f"adapter={run_dir}", *["image=PICTURE"] * spec.needs_image, *["prompt=TEXT"] * spec.needs_text]
    console.print(
        f"use it         python -m svdtrain generate {shlex.join(words)} out=video.mp4",
        highlight=False,
        soft_wrap=True,
    )
