"""What is asked for: the pictures, prompts and seeds of a config as requests, each with the name of its video."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from svdtrain.config.fields import listed
from svdtrain.families.protocol import Request
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import UsageError
from svdtrain.generation.images import find_images, read_image

if TYPE_CHECKING:
    from PIL import Image

    from svdtrain.config.generation import GenerateConfig


def requests_of(config: GenerateConfig) -> dict[str, Request]:
    """Name -> request, for each picture or prompt and each seed; with text_to_image the pictures are yet to be drawn.

    Raises UsageError for what the model does not read, or lacks, and for two videos of one name.
    """
    _refuse_unread(config)
    requests: dict[str, Request] = {}
    for shown, picture, prompt in _shown(config):
        for seed in listed(config.seed):
            name = f"{shown}-{seed}"
            if name in requests:
                raise UsageError(f"two videos would be called '{name}'", "rename a picture, or name each seed once")
            requests[name] = _request(config, picture, prompt, seed)
    return requests


def _refuse_unread(config: GenerateConfig) -> None:
    spec, name, prompts = spec_of(config.model.family), config.model.name, listed(config.prompt)
    for key in ("image", "text_to_image"):
        if getattr(config, key) and not spec.needs_image:
            raise UsageError(f"{key}: {name} animates no picture", "prompt=TEXT")
    if prompts and not spec.needs_text and not config.text_to_image:
        hint = "image=PICTURE, or text_to_image=FOLDER to have the first frame drawn by the prompt"
        raise UsageError(f"prompt: {name} reads no text", hint)
    if spec.needs_text and not prompts:
        raise UsageError(f"prompt: is not set, and {name} is told what to show", "prompt=TEXT")
    if spec.needs_image and not config.image and not config.text_to_image:
        hint = "image=PICTURE or a folder of pictures, or text_to_image=FOLDER to have it drawn by the prompt"
        raise UsageError("image: is not set", hint)


def _shown(config: GenerateConfig) -> list[tuple[str, Image.Image | None, str]]:
    """(name, picture, prompt) of each video to be."""
    prompts = [(_slug(prompt, place), prompt) for place, prompt in enumerate(listed(config.prompt))]
    if not config.image:
        return [(slug, None, prompt) for slug, prompt in prompts]
    size = (config.model.height, config.model.width)
    pictures = [(path.stem, read_image(path, *size)) for path in find_images(config.image)]
    if len(prompts) > 1:
        return [(f"{name}-{slug}", picture, prompt) for name, picture in pictures for slug, prompt in prompts]
    return [(name, picture, prompt) for name, picture in pictures for _, prompt in prompts or [("", "")]]


def _slug(prompt: str, place: int) -> str:
    """1-a-cat-on-a-roof"""
    return f"{place + 1}-{re.sub(r'[^A-Za-z0-9]+', '-', prompt)[:40].strip('-')}"


def _request(config: GenerateConfig, picture: Image.Image | None, prompt: str, seed: int) -> Request:
    return Request(
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
