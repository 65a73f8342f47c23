"""`python -m svdtrain generate`: videos from pictures or prompts, by the stock pipeline, with adapters or without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from svdtrain.adapters.files import adapter_path
from svdtrain.adapters.pipelines import load_adapter
from svdtrain.config.fields import each_strength, listed
from svdtrain.families.build import build_family
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.generation.first_frame import TextToImage, with_first_frames
from svdtrain.generation.outputs import outputs_of
from svdtrain.generation.requests import requests_of
from svdtrain.generation.sheets import contact_sheet, write_png
from svdtrain.generation.video_files import write_mp4

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from svdtrain.config.generation import GenerateConfig


def run(config: GenerateConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """One video per picture or prompt and seed, and a contact sheet of them all."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    quiet_packages()
    adapters = [] if config.base_only else listed(config.adapter)
    strengths = each_strength(config.strength, len(adapters))
    for adapter in adapters:
        adapter_path(adapter)
    named = requests_of(config)
    requests = list(named.values())
    outputs = outputs_of(Path(config.out), named, drawn=bool(config.text_to_image))

    device = choose_device(config.device)
    dtype = DTYPES[choose_precision("auto", device)]
    if config.text_to_image:
        requests = with_first_frames(requests, _drawer(config, config.text_to_image), device, dtype)
    family = build_family(config.model)
    family.to(device, dtype)
    for prompt in dict.fromkeys(request.prompt for request in requests):
        if end := family.unread(prompt):
            log.warning("the prompt is longer than what is read; not read: '%s'", end)
    for adapter, strength in zip(adapters, strengths, strict=True):
        spatial = strength.spatial if config.spatial_strength is None else config.spatial_strength
        temporal = strength.temporal if config.temporal_strength is None else config.temporal_strength
        load_adapter(family.denoiser, adapter, spatial=spatial, temporal=temporal)

    # Only now: a mistake in what was loaded leaves nothing behind. And all of them: some may be wanted without their video.
    for request, target in zip(requests, outputs.first_frames, strict=False):
        write_png(target, np.asarray(request.image))
        console.print(str(target))
    rows = []
    for request, target in zip(requests, outputs.videos, strict=True):
        (video,) = family.sample([request])
        write_mp4(target, video, config.fps)
        rows.append((target.stem, video))
        console.print(str(target))
    write_png(outputs.sheet, contact_sheet(rows))
    console.print(str(outputs.sheet))


def _drawer(config: GenerateConfig, source: str) -> TextToImage:
    files = listed(config.image_adapter)
    return TextToImage(
        source,
        steps=config.text_to_image_steps,
        guidance=config.text_to_image_guidance,
        negative_prompt=config.negative_prompt,
        adapters=list(zip(files, each_strength(config.image_adapter_strength, len(files)), strict=True)),
    )
