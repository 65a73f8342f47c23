"""Captions by a vision-language model that the user has, through transformers; nothing is fetched unless asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FRAMES = 4
MOST_TOKENS = 256
LONGEST_SIDE = 768


def caption_clips(
    model: str,
    clips: Iterable[tuple[str, np.ndarray]],
    prompt: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    network: bool = False,
) -> Iterator[tuple[str, str]]:
    """(key, caption) of each (key, uint8 RGB frames [T, H, W, 3]), in order, one clip at a time.

    `model` is a folder or a Hub id in the Hub cache (`network`: it may be fetched) of a model that answers pictures and
    text with text. It sees up to four frames spread over the clip, then the prompt, and decodes greedily. ModelError
    when it is not there, is of another kind, or needs code of its own.
    """
    processor, network_of = _loaded(model, revision, device, local=not network)
    for key, frames_THWC in clips:
        pictures = _pictures(frames_THWC)
        inputs = processor(text=_asked(processor, prompt, len(pictures)), images=pictures, return_tensors="pt")
        inputs = inputs.to(device, network_of.dtype)
        with torch.inference_mode():
            tokens = network_of.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=MOST_TOKENS)
        answer = tokens[:, inputs["input_ids"].shape[1] :]
        yield key, " ".join(processor.batch_decode(answer, skip_special_tokens=True)[0].split())


def _loaded(model: str, revision: str | None, device: str, *, local: bool) -> tuple[Any, Any]:
    """The processor and the model, in bf16 on a GPU and fp32 on a CPU."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options: dict[str, Any] = {"revision": revision, "local_files_only": local, "trust_remote_code": False}
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        processor = AutoProcessor.from_pretrained(model, **options)
        network: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"captions by {model}: it cannot be loaded: {first}",
            f"name a folder or a cached Hub id of an image-text-to-text model; to fetch one: hf download {model}",
        ) from error
    return processor, network.to(device).eval()


def _asked(processor: Any, prompt: str, pictures: int) -> str:  # noqa: ANN401
    """The prompt after the pictures, as the model's own chat template lays it out where it has one."""
    if not processor.chat_template:
        return f"{getattr(processor, 'image_token', '<image>') * pictures} {prompt}"
    content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": prompt}]
    turns = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


def _pictures(frames_THWC: np.ndarray) -> list[Image.Image]:
    places = np.unique(np.linspace(0, len(frames_THWC) - 1, FRAMES).round().astype(int))
    pictures = [Image.fromarray(frames_THWC[place]) for place in places]
    for picture in pictures:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return pictures
