"""A model config to a loaded family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.families.registry import load_family
from svdtrain.families.weights import Weights
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from svdtrain.config.schema import ModelConfig, NoiseLevels
    from svdtrain.families.protocol import ModelFamily


def build_weights(model: ModelConfig) -> Weights:
    """The local folder, the Hub id, or the package's own base."""
    if model.source or model.id is None:
        place = model.source or str(packaged("assets") / model.name)
        return Weights(place, variant=model.variant)
    return Weights(model.id, model.revision, model.variant, is_hub=True)


def build_family(model: ModelConfig) -> ModelFamily:
    """The model with its weights, on the CPU in fp32."""
    return load_family(
        model.family,
        weights=build_weights(model),
        levels=_levels(model.noise_levels),
        condition_noise=_levels(model.condition_noise),
    )


def _levels(levels: NoiseLevels) -> LogNormalLevels:
    return LogNormalLevels(levels.mean, levels.std, levels.minimum, levels.maximum)
