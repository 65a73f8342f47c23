"""Every loaded family in the training step, in half precision, and what is refused at loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl import _center_crop_wide, _resize_bilinear
from PIL import Image
from torch.utils._pytree import tree_leaves

from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.adapters.targets import half_of
from svdtrain.diffusion.objective import DiscretePrediction
from svdtrain.families.protocol import ModelFamily, Noise
from svdtrain.families.registry import load_family
from svdtrain.families.weights import Weights
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.seeding import Draws
from svdtrain.training.module import FineTuning
from svdtrain.training.optimization import OptimizerSettings
from tests.families.cases import CASES, Case, batch_of
from tests.tiny_pipelines import save_tiny_animatediff, save_tiny_motion_adapter, save_tiny_pictures

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each
def test_a_still_teaches_the_temporal_half_nothing(case: Case, family: ModelFamily) -> None:
    """In training_step itself; a clip of several frames teaches both halves."""
    patterns = family.spec.targets["attention"]
    halves = inject(family.denoiser, AdapterSpec({h: HalfSpec(p, 2, 2.0, 1e-4) for h, p in patterns.items()}), seed=0)
    settings = OptimizerSettings(dict.fromkeys(patterns, 1e-4), (0.9, 0.999), 0.0, 0, "constant", 9)
    rates: dict[str, Any] = {"clips_per_step": 1, "condition_dropout": 0.0, "image_dropout": 0.0}
    module = FineTuning(family, settings, halves, seed=0, cache=None, denoiser_dtype=torch.float32, **rates)
    module._trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
    for frames in (1, None):
        family.denoiser.zero_grad()
        module.training_step(batch_of(case, "a cat", frames=frames), 0).backward()
        learnt = {"spatial": 0.0, "temporal": 0.0}
        for name, parameter in module.trained_parameters().items():
            assert parameter.grad is not None
            learnt[half_of(name)] += float(parameter.grad.abs().sum())
        assert learnt["spatial"] > 0
        assert (learnt["temporal"] > 0) == (frames is None and "temporal" in patterns)


@each
def test_half_precision_trains_and_samples(case: Case, family: ModelFamily) -> None:
    """As on a GPU: a bf16 denoiser under autocast, fp32 encoders, T5 as it was saved; then the same frames after a rest."""
    family.to("cpu", torch.bfloat16)
    accelerate(family.denoiser, set(LEVERS) - {"fused_pointwise"})
    batch, draws = batch_of(case, "a cat", "two dogs"), Draws(0, (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            encoded = family.encode_clips(batch)
            conditions = family.encode_conditions(batch, encoded, draws)
        z = family.posterior(encoded).mode()
        noisy = family.objective.corrupt(z, torch.ones_like(z), family.objective.levels(draws.uniform("level")))
        answer = family.denoise(noisy, conditions)
    assert {z.dtype, noisy.input_BTCHW.dtype, answer.dtype, encoded.embeddings_BLD.dtype} == {torch.float32}
    seen: list[torch.dtype] = []
    networks: list[Any] = [family.denoiser, family.frozen()["vae"].encoder]
    for network in networks:
        network.register_forward_hook(
            lambda _, args, kwargs, out: seen.extend(_dtypes((args, kwargs, out))), with_kwargs=True
        )
    (before,) = family.sample([case.request(family)])
    assert set(seen) == {torch.float32}, "samplers and encoders go by fp32; autocast is within the denoiser"
    assert not vars(family.denoiser).keys() & {"forward"}, "gone afterwards"
    family.rest()
    (after,) = family.sample([case.request(family)])
    assert before.std() > 0
    assert np.array_equal(before, after)


def _dtypes(tree: Any) -> list[torch.dtype]:  # noqa: ANN401
    return [leaf.dtype for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


@each
def test_a_tokenizer_without_its_words_is_refused(
    case: Case, tmp_path: Path, folders: dict[str, Path], family: ModelFamily
) -> None:
    """transformers would load it, and read every word as unknown."""
    if not family.spec.needs_text:
        pytest.skip("it reads no text")
    shutil.copytree(folders[case.name], tmp_path / "base")
    for file in ("spiece.model", "tokenizer.json", "vocab.json", "merges.txt"):
        (tmp_path / "base" / "tokenizer" / file).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="its vocabulary is missing"):
        case.load(tmp_path / "base")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"prediction_type": "sample"}, "prediction_type=sample"), ({"trained_betas": [0.01] * 1000}, "it is off by")],
)
def test_a_scheduler_that_is_not_known_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    case = next(case for case in CASES if case.name == "unet3d")
    file = case.save(tmp_path) / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        case.load(tmp_path)


def test_a_pictures_embedding_is_the_stock_pipelines_to_the_bit(tmp_path: Path) -> None:
    """One that is not square, through I2VGen-XL's own crop, resizing and encoding."""
    case = next(case for case in CASES if case.name == "i2vgen_xl")
    family: Any = case.load(case.save(tmp_path))
    pixels = torch.randint(0, 256, (3, 24, 40), generator=torch.Generator().manual_seed(0))
    square = _center_crop_wide(Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()), (40, 40))
    pipeline: Any = family.pipeline()
    pipeline._guidance_scale = 1.0
    with torch.no_grad():
        stock = pipeline._encode_image(_resize_bilinear(square, (224, 224)), "cpu", 1)
    assert torch.equal(family.embed_images(pixels[None] / 127.5 - 1), stock)


def test_motion_modules_in_a_picture_model_keep_their_own_schedule(tmp_path: Path) -> None:
    """The picture model's scheduler has scaled linear betas, with which motion modules were never trained."""
    pictures, motion = save_tiny_pictures(tmp_path / "pictures"), save_tiny_motion_adapter(tmp_path / "motion")
    weights = Weights(str(pictures), parts={"motion_adapter": Weights(str(motion))})
    family = load_family("animatediff", weights, Noise())
    case = next(case for case in CASES if case.name == "animatediff")
    whole = case.load(save_tiny_animatediff(tmp_path / "whole"))
    assert isinstance(family.objective, DiscretePrediction)
    assert isinstance(whole.objective, DiscretePrediction)
    assert torch.equal(family.objective.shares, whole.objective.shares)
    assert float(family.objective.shares[-1].sqrt()) == pytest.approx(0.0397, abs=1e-4)
    (one,), (other,) = (each.sample([case.request(each)]) for each in (family, whole))
    assert np.array_equal(one, other)
