"""Parts that several families have alike, read from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import CLIPTextModel, CLIPTokenizer

from svdtrain.diffusion.objective import DiscretePrediction
from svdtrain.diffusion.schedules import signal_shares
from svdtrain.families.text import Texts
from svdtrain.families.weights import load_part

if TYPE_CHECKING:
    from svdtrain.families.protocol import Noise
    from svdtrain.families.weights import Weights


def load_clip_texts(weights: Weights, layers_left_out: int = 0) -> Texts:
    """CLIP's text encoder and its tokenizer."""
    tokenizer = load_part(CLIPTokenizer, weights, "tokenizer")
    encoder = load_part(CLIPTextModel, weights, "text_encoder")
    return Texts(encoder, tokenizer, tokenizer.model_max_length, layers_left_out)


def objective_of(scheduler: Any, noise: Noise) -> DiscretePrediction:  # noqa: ANN401
    """The objective that the checkpoint's scheduler samples by."""
    told = scheduler.config
    shares = signal_shares(
        told.beta_schedule,
        told.num_train_timesteps,
        told.beta_start,
        told.beta_end,
        shift=told.get("snr_shift_scale", 1.0),
        zero_terminal=told.get("rescale_betas_zero_snr", False),
    )
    return DiscretePrediction(shares, "v" if told.prediction_type == "v_prediction" else "epsilon", noise.offset)
