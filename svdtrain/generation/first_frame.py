"""First frames drawn by a text-to-image pipeline: text to video by models that animate a picture."""

from __future__ import annotations

import gc
import inspect
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants, snapshot_download
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from svdtrain.foundation.errors import UsageError
from svdtrain.generation.images import fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from svdtrain.families.protocol import Request

_UNFIT = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError, SafetensorError)
"""What loaders of other packages raise for files that are not what they wanted."""


@dataclass(frozen=True)
class TextToImage:
    """A stock text-to-image pipeline, and how it is to draw."""

    source: str
    """A diffusers folder, or ID or ID@REVISION in the Hub's cache."""
    steps: int | None = None
    guidance: float | None = None
    """None: the pipeline's own."""
    negative_prompt: str = ""
    adapters: Sequence[tuple[str, float]] = ()
    """LoRA files with their strengths."""


def with_first_frames(
    requests: Sequence[Request], drawer: TextToImage, device: str, dtype: torch.dtype
) -> list[Request]:
    """The requests, each with a picture of its prompt, seed and size; then the pipeline has left memory.

    Equal requests give equal pictures. Raises UsageError for a pipeline or an adapter that cannot be used.
    """
    drawn = _drawn(requests, drawer, device, dtype)
    gc.collect()
    torch.cuda.empty_cache()
    return drawn


def _drawn(requests: Sequence[Request], drawer: TextToImage, device: str, dtype: torch.dtype) -> list[Request]:
    wanted = [_adapter_tensors(file) for file, _ in drawer.adapters]
    pipe = _load(drawer.source, dtype)
    names = [f"image_adapter_{number}" for number in range(len(wanted))]
    for name, (file, _), tensors in zip(names, drawer.adapters, wanted, strict=True):
        _load_adapter(pipe, name, file, tensors)
    if names:
        pipe.set_adapters(names, [strength for _, strength in drawer.adapters])
    pipe.to(device)
    options = _options(pipe, drawer)
    return [replace(request, image=_draw(pipe, request, options)) for request in requests]


def _load(source: str, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """The pipeline on the CPU: from disk alone, safetensors only, and no code that comes with it."""
    from diffusers import AutoPipelineForText2Image  # imports all pipelines there are, which takes seconds
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    folder = _folder(source)
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        pipe: Any = AutoPipelineForText2Image.from_pretrained(folder, dtype=dtype, **options)
    except _UNFIT as error:
        raise UsageError(
            f"text_to_image={source}: cannot be loaded as a text-to-image pipeline: {_said(error)}",
            "wanted: the whole diffusers folder (model_index.json) of a text-to-image pipeline, its weights as safetensors",
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _folder(source: str) -> str:
    """The folder itself, or that of a Hub id in the cache."""
    if Path(source).is_dir():
        return source
    place, _, revision = source.partition("@")
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UsageError(f"text_to_image={source}: there is no such folder", "a diffusers folder, or a Hub id")
    try:
        return snapshot_download(place, revision=revision or None, local_files_only=True)
    except (OSError, ValueError) as error:
        fetch = f"hf download {place}" + (f" --revision {revision}" if revision else "")
        raise UsageError(
            f"text_to_image={source}: there is no such folder, nor is it in the Hub cache {constants.HF_HUB_CACHE}",
            f"a diffusers folder; a Hub id is fetched once with: {fetch}",
        ) from error


def _adapter_tensors(file: str) -> int:
    """How many tensors of a LoRA file want a place in the pipeline: all but its alphas, which are scales."""
    if not Path(file).is_file():
        raise UsageError(f"image_adapter={file}: there is no such file", "image_adapter=FILE.safetensors")
    try:
        with safe_open(file, "numpy") as tensors:
            return sum(not key.endswith(".alpha") for key in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        hint = "a LoRA as a safetensors file; pickles (.bin, .pt, .ckpt) are never read"
        raise UsageError(f"image_adapter={file}: not a whole safetensors file: {_said(error)}", hint) from error


def _load_adapter(pipe: Any, name: str, file: str, tensors: int) -> None:  # noqa: ANN401
    """By the pipeline's own loader, which skips in silence what it has no place for: so what has arrived is counted."""
    kind = type(pipe).__name__
    hint = "wanted: a LoRA that was made for this text-to-image model"
    if not hasattr(pipe, "load_lora_weights"):
        raise UsageError(f"image_adapter={file}: {kind} takes no LoRA", "image_adapter=null")
    try:
        pipe.load_lora_weights(file, adapter_name=name, use_safetensors=True, local_files_only=True)
    except _UNFIT as error:
        raise UsageError(f"image_adapter={file}: no LoRA that {kind} can load: {_said(error)}", hint) from error
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    layers = [(key.split("."), value) for part in modules for key, value in part.named_parameters()]
    places = [(key, value) for key, value in layers if name in key]
    empty = next((".".join(key) for key, value in places if value.is_meta), None)
    if empty or not places or len(places) < tensors:
        seen = f"it lacks {empty}" if empty else f"of its {tensors} tensors {len(places)} have a place in this {kind}"
        raise UsageError(f"image_adapter={file}: {seen}", hint)


def _options(pipe: Any, drawer: TextToImage) -> dict[str, Any]:  # noqa: ANN401
    """What the pipeline is told besides prompt and size; a warning for what it does not know."""
    options = {
        "num_inference_steps": drawer.steps,
        "guidance_scale": drawer.guidance,
        "negative_prompt": drawer.negative_prompt or None,
    }
    options = {key: value for key, value in options.items() if value is not None}
    for key in options.keys() - inspect.signature(pipe.__call__).parameters.keys():
        logging.getLogger(__name__).warning(f"text_to_image={drawer.source}: {type(pipe).__name__} takes no {key}")
        del options[key]
    return options


def _draw(pipe: Any, request: Request, options: dict[str, Any]) -> Image.Image:  # noqa: ANN401
    seed = torch.Generator().manual_seed(request.seed)
    try:
        answer = pipe(prompt=request.prompt, height=request.height, width=request.width, generator=seed, **options)
    except (TypeError, ValueError) as error:
        seen = f"{type(pipe).__name__} does not draw {request.width} x {request.height}: {_said(error)}"
        raise UsageError(f"text_to_image: {seen}", "another pipeline, or another size") from error
    if any(getattr(answer, "nsfw_content_detected", None) or []):
        said = f"the pipeline's safety checker has blackened the first frame of seed {request.seed}"
        logging.getLogger(__name__).warning(said)
    return fitted(answer.images[0].convert("RGB"), request.height, request.width)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
