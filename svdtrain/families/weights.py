"""Where a model's weights are, and loading one part of them: safetensors only, from disk only, and never remote code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from huggingface_hub import constants
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from svdtrain.foundation.errors import ModelError


@dataclass(frozen=True)
class Weights:
    """A local diffusers folder, or a Hub id at a pinned revision that was fetched before."""

    place: str
    """Folder, or Hub id."""
    revision: str | None = None
    variant: str | None = None
    is_hub: bool = False

    def __str__(self) -> str:
        if not self.is_hub:
            return self.place
        return f"{self.place} at revision {self.revision or 'main'}"


def load_part(kind: type[Any], weights: Weights, part: str) -> Any:  # noqa: ANN401
    """Load one sub-folder of a diffusers model. Raises ModelError: what was looked for, where, and how to get it."""
    folder = Path(weights.place) / part
    if not weights.is_hub and not folder.is_dir():
        where = "there is no such folder" if not Path(weights.place).is_dir() else f"it has no folder '{part}'"
        hint = (
            "model.source=FOLDER wants a diffusers folder with unet, vae, image_encoder, scheduler, feature_extractor"
        )
        raise ModelError(f"model.source={weights.place}: {where}", hint)
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {"subfolder": part, "local_files_only": True}
    if weights.is_hub:
        options["revision"] = weights.revision
    if issubclass(kind, ModelMixin | PreTrainedModel):
        options |= {"use_safetensors": True, "variant": weights.variant, "torch_dtype": torch.float32}
    try:
        return kind.from_pretrained(weights.place, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        if weights.is_hub:
            revision = f" --revision {weights.revision}" if weights.revision else ""
            raise ModelError(
                f"{part} of {weights} is not in the Hub cache {constants.HF_HUB_CACHE} ({reason})",
                f"fetch it once with: hf download {weights.place}{revision}; or give a folder: model.source=FOLDER",
            ) from error
        raise ModelError(
            f"model.source={weights.place}: '{part}' cannot be loaded as {kind.__name__}: {reason}",
            "only safetensors weights in the diffusers layout are read; with variant files set model.variant=fp16",
        ) from error
