"""Parts that several families have alike, read from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from svdtrain.diffusion.objective import DiscretePrediction, Target
from svdtrain.diffusion.schedules import Betas, signal_shares
from svdtrain.families.text import Texts
from svdtrain.families.weights import load_part
from svdtrain.foundation.errors import ModelError

TARGETS: dict[str, Target] = {"epsilon": "epsilon", "v_prediction": "v"}
BETAS = get_args(Betas)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import CLIPImageProcessor

    from svdtrain.families.protocol import Noise
    from svdtrain.families.weights import Weights


def presets(halves: Mapping[str, str], attention: str, feed_forward: str) -> dict[str, dict[str, str]]:
    """FamilySpec.targets, of patterns: `halves` match a half's blocks, the others what is adapted within a block."""
    within = {"attention": attention, "attention_and_feed_forward": f"({attention}|{feed_forward})"}
    return {
        name: {half: rf"{blocks}\.{modules}" for half, blocks in halves.items()} for name, modules in within.items()
    }


def normalised(pixels_BCHW: Tensor, processor: CLIPImageProcessor) -> Tensor:
    """Pixels in [0, 1] as CLIP's image encoder wants them."""
    mean_C, std_C = (torch.tensor(told).to(pixels_BCHW) for told in (processor.image_mean, processor.image_std))
    return (pixels_BCHW - mean_C[:, None, None]) / std_C[:, None, None]


def load_clip_texts(weights: Weights, layers_left_out: int = 0) -> Texts:
    """CLIP's text encoder and its tokenizer."""
    tokenizer = load_part(CLIPTokenizer, weights, "tokenizer")
    encoder = load_part(CLIPTextModel, weights, "text_encoder")
    return Texts(encoder, tokenizer, tokenizer.model_max_length, layers_left_out)


def objective_of(scheduler: Any, noise: Noise) -> DiscretePrediction:  # noqa: ANN401
    """The objective that the checkpoint's scheduler samples by. ModelError for one that is not known here."""
    told = scheduler.config
    if told.prediction_type not in TARGETS or told.beta_schedule not in BETAS:
        seen = f"prediction_type={told.prediction_type}, beta_schedule={told.beta_schedule}"
        raise ModelError(f"scheduler: {seen}: not trained here", f"{' or '.join(TARGETS)}; {', '.join(BETAS)}")
    shares = signal_shares(
        told.beta_schedule,
        told.num_train_timesteps,
        told.beta_start,
        told.beta_end,
        shift=told.get("snr_shift_scale", 1.0),
        zero_terminal=told.get("rescale_betas_zero_snr", False),
    )
    apart = float((shares - scheduler.alphas_cumprod).abs().max())
    if apart > 1e-4:
        raise ModelError(
            f"scheduler: its schedule is not that of its own settings (it is off by {apart:.2g})", "another one"
        )
    return DiscretePrediction(shares, TARGETS[told.prediction_type], noise.offset)
