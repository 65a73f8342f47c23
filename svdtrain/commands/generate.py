"""`python -m svdtrain generate`: videos from pictures, by the stock pipeline, with adapters or without."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.adapters.files import adapter_path
from svdtrain.adapters.pipelines import load_adapter
from svdtrain.families.build import build_family
from svdtrain.families.protocol import Request
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.generation.images import find_images, read_image
from svdtrain.generation.sheets import contact_sheet, write_png
from svdtrain.generation.video_files import write_mp4

if TYPE_CHECKING:
    from PIL import Image

    from svdtrain.config.schema import GenerateConfig


def run(config: GenerateConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """One video per picture or prompt and seed, and a contact sheet of them all."""
    console = Console()
    quiet_packages()
    adapters = [] if config.base_only else _listed(config.adapter)
    strengths = _strengths(config.strength, len(adapters))
    for adapter in adapters:
        adapter_path(adapter)
    shown = _shown(config)
    seeds = [config.seed] if isinstance(config.seed, int) else list(config.seed)
    targets = _targets(Path(config.out), [name for name, _, _ in shown], seeds)

    family = build_family(config.model)
    device = choose_device(config.device)
    family.to(device, DTYPES[choose_precision("auto", device)])
    for adapter, strength in zip(adapters, strengths, strict=True):
        load_adapter(
            family.denoiser, adapter, strength, spatial=config.spatial_strength, temporal=config.temporal_strength
        )
    rows = []
    for ((_, picture, prompt), seed), target in zip(itertools.product(shown, seeds), targets, strict=True):
        request = Request(
            image=picture,
            frames=config.model.frames,
            height=config.model.height,
            width=config.model.width,
            steps=config.steps,
            seed=seed,
            fps=config.fps,
            motion_bucket_id=config.motion_bucket_id,
            noise_aug_strength=config.noise_aug_strength,
            min_guidance=config.min_guidance,
            max_guidance=config.max_guidance,
            prompt=prompt,
            negative_prompt=config.negative_prompt,
        )
        (video,) = family.sample([request])
        write_mp4(target, video, config.fps)
        rows.append((target.stem, video))
        console.print(str(target), highlight=False, markup=False, soft_wrap=True)
    sheet = _sheet(Path(config.out), targets)
    write_png(sheet, contact_sheet(rows))
    console.print(str(sheet), highlight=False, markup=False, soft_wrap=True)


def _sheet(out: Path, targets: list[Path]) -> Path:
    return out.with_suffix(".png") if len(targets) == 1 else out / "contact_sheet.png"


def _shown(config: GenerateConfig) -> list[tuple[str, Image.Image | None, str]]:
    """(name, picture, prompt) of each video to be. Raises UsageError for what the model does not read, or lacks."""
    spec, name, prompts = spec_of(config.model.family), config.model.name, _listed(config.prompt)
    if config.image and not spec.needs_image:
        raise UsageError(f"image: {name} animates no picture", "prompt=TEXT")
    if prompts and not spec.needs_text:
        raise UsageError(f"prompt: {name} reads no text", "image=PICTURE")
    if spec.needs_text and not prompts:
        raise UsageError(f"prompt: is not set, and {name} is told what to show", "prompt=TEXT")
    if not config.image:
        if spec.needs_image:
            raise UsageError("image: is not set", "image=PICTURE or a folder of pictures")
        return [(_slug(prompt, place), None, prompt) for place, prompt in enumerate(prompts)]
    images = find_images(config.image)
    size = (config.model.height, config.model.width)
    return [(path.stem, read_image(path, *size), prompt) for path in images for prompt in prompts or [""]]


def _slug(prompt: str, place: int) -> str:
    """1-a-cat-on-a-roof"""
    return f"{place + 1}-{re.sub(r'[^A-Za-z0-9]+', '-', prompt)[:40].strip('-')}"


def _listed(adapter: str | list[str] | None) -> list[str]:
    if adapter is None:
        return []
    return [adapter] if isinstance(adapter, str) else list(adapter)


def _strengths(strength: float | list[float], adapters: int) -> list[float]:
    if not isinstance(strength, list):
        return [strength] * adapters
    if len(strength) != adapters:
        raise UsageError(
            f"strength={strength}: {len(strength)} numbers for {adapters} adapters",
            "give one number, or one per adapter",
        )
    return strength


def _targets(out: Path, names: list[str], seeds: list[int]) -> list[Path]:
    """out itself for one video, else OUT/NAME-SEED.mp4. Nothing is overwritten."""
    if len(names) * len(seeds) == 1:
        targets = [out]
        if out.suffix.lower() != ".mp4":
            raise UsageError(f"out={out}: one video is written to an mp4 file", "out=NAME.mp4")
    else:
        targets = [out / f"{name}-{seed}.mp4" for name in names for seed in seeds]
        if out.suffix:
            raise UsageError(f"out={out}: {len(targets)} videos need a folder", "out=FOLDER")
    taken = next((target for target in [*targets, _sheet(out, targets)] if target.exists()), None)
    if taken:
        raise UsageError(f"out={out}: {taken} exists already", "choose another name; nothing is overwritten")
    return targets
