"""The schema of `generate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from svdtrain.config.fields import Finite, Positive, Private
from svdtrain.config.schema import ModelConfig
from svdtrain.config.strengths import StrengthSetting


class GenerateConfig(Private):
    """`python -m svdtrain generate`."""

    model: ModelConfig
    adapter: str | list[str] | None
    """A run folder or an adapter file, or several."""
    image: str | None
    """A picture or a folder of pictures, for models that animate one."""
    prompt: str | list[str] | None
    """What to show, for models that read text and for text_to_image; several make several videos."""
    negative_prompt: str
    text_to_image: str | None
    """Instead of image: a diffusers text-to-image pipeline that draws the first frame by the prompt and the seed. A folder,
    or ID or ID@REVISION in the Hub's cache."""
    text_to_image_steps: Positive | None
    """null: the pipeline's own."""
    text_to_image_guidance: Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)] | None
    """null: the pipeline's own."""
    image_adapter: str | list[str] | None
    """A LoRA for that pipeline, as a safetensors file, or several."""
    image_adapter_strength: Finite | list[Finite]
    """As strength: one number per image adapter, or one for all."""
    out: str
    """An mp4, or a folder when there are several videos."""
    seed: int | list[int]
    steps: Positive
    fps: Annotated[int, Field(ge=1, le=240)]
    motion_bucket_id: Annotated[int, Field(ge=0, le=255)]
    noise_aug_strength: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    min_guidance: Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
    max_guidance: Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
    strength: StrengthSetting | list[StrengthSetting]
    """1.0 as trained, 0.0 the base; 0.8/0.5: spatial and temporal half. One per adapter, or one for all."""
    spatial_strength: Finite | None
    """Instead of strength, for the spatial half of every adapter."""
    temporal_strength: Finite | None
    """Likewise for the temporal half."""
    base_only: bool
    device: Literal["auto", "cpu", "cuda"]
