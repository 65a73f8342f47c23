"""A step predicted from configuration files takes what the real training step takes, with real weights and real clips."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig

from svdtrain.families.build import build_family
from svdtrain.planning.memory import measure_step
from svdtrain.planning.training_step import predict_fit
from svdtrain.training.build import build_module
from tests.families.cases import CASES, Case, batch_of
from tests.planning.settings import settings_of
from tests.tiny_models import SCHEDULER

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each
def test_every_familys_prediction_is_the_real_training_steps_peak(case: Case, tmp_path: Path) -> None:
    """FineTuning.training_step itself on tensors with content: to 1 %, and without weights beside the configs."""
    config = settings_of(case.name, tmp_path, "data.cache=none")
    family = build_family(config.model)
    module = build_module(config, family)
    family.to("cpu", torch.float32)  # as the module does when training starts
    module._trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
    beside = [t for network in family.frozen().values() for t in (*network.parameters(), *network.buffers())]
    real = measure_step(
        family.denoiser, lambda: module.training_step(batch_of(case, "a cat", "two dogs"), 0), beside=beside
    )
    for file in (tmp_path / case.name).rglob("*.safetensors"):
        file.unlink()
    predicted = predict_fit(config, build_module)
    assert predicted.peak == pytest.approx(real.peak, rel=0.01)
    assert (predicted.weights, predicted.trained) == (real.weights, real.trained)


def test_settings_count(tmp_path: Path) -> None:
    """What each setting adds or saves, beside the same settings without it."""
    plain = predict_fit(settings_of("svd", tmp_path), build_module)
    average = predict_fit(settings_of("svd", tmp_path, "optimizer.ema_decay=0.9"), build_module)
    again = predict_fit(settings_of("svd", tmp_path, "memory=blocks"), build_module)
    cached = predict_fit(settings_of("svd", tmp_path), build_module, encoded_ahead=True)
    larger = predict_fit(settings_of("svd", tmp_path), build_module, sizes=[(3, 32, 32), (5, 32, 48), (1, 64, 64)])
    assert average.weights == plain.weights + plain.trained
    assert again.activations < 0.7 * plain.activations
    assert cached.weights == plain.weights
    assert cached.peak <= plain.peak
    assert 2 < larger.activations / plain.activations < 3


@pytest.mark.slow
def test_all_of_stable_video_diffusion_takes_seconds(tmp_path: Path) -> None:
    """The published sizes: UNet 1.52, CLIP 0.63, VAE 0.10 billion; frozen in fp32 on a CPU."""
    with torch.device("meta"):
        blocks: Any = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4}
        diffusers.UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)).save_config(tmp_path / "unet")
        diffusers.AutoencoderKLTemporalDecoder(**blocks, layers_per_block=2).save_config(tmp_path / "vae")
    sizes: Any = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    CLIPVisionConfig(**sizes, patch_size=14, projection_dim=1024).save_pretrained(tmp_path / "image_encoder")
    CLIPImageProcessor().save_pretrained(tmp_path / "feature_extractor")
    diffusers.EulerDiscreteScheduler(**SCHEDULER).save_pretrained(tmp_path / "scheduler")
    words = [f"model.source={tmp_path}", "model.frames=14", "model.height=576", "model.width=1024"]
    config = settings_of("svd", tmp_path / "tiny", *words, "data.batch_size=1", "memory=blocks")
    start = time.process_time()
    predicted = predict_fit(config, build_module)
    assert time.process_time() - start < 30
    assert predicted.weights == pytest.approx(4 * 2.254e9, rel=0.002)
    assert 20 * 2**30 < predicted.peak < 30 * 2**30
