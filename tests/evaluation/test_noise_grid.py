"""Losses on the grid: reproducible, of each clip by itself, and by an independent formula what the family is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svdtrain.evaluation import noise_grid
from svdtrain.evaluation.noise_grid import SEED, levels_of, losses_on_grid, prepare
from svdtrain.foundation.seeding import Draws
from svdtrain.types import ClipBatch
from tests.families.cases import CASES, Case, batch_of

SIGMAS = [0.1, 2.0, 50.0]
SVD = CASES[0]


def clips_of(case: Case, count: int) -> list[ClipBatch]:
    """Batches of one, each of a square of another colour and place."""
    batch = batch_of(case, *"abcde"[:count])
    return [
        ClipBatch(
            batch.pixels_BTCHW[i : i + 1], batch.fps_B[:1], batch.motion_bucket_B[:1], (f"{i}",), (i,), ("a cat",)
        )
        for i in range(count)
    ]


def test_losses_are_reproducible_and_of_each_clip_alone(model: Path) -> None:
    family, clips = SVD.load(model), clips_of(SVD, 3)
    first_NS = losses_on_grid(family, clips, SIGMAS)
    torch.manual_seed(5)
    assert np.array_equal(losses_on_grid(family, clips, SIGMAS), first_NS)
    assert np.array_equal(losses_on_grid(family, clips[::-1], SIGMAS), first_NS[::-1])
    assert len(np.unique(first_NS)) == first_NS.size
    renamed = replace(clips[0], keys_B=("another",))
    assert not np.array_equal(losses_on_grid(family, [renamed], SIGMAS)[0], first_NS[0]), "each clip has its own noise"


def test_a_loss_is_the_error_of_the_v_prediction(model: Path) -> None:
    family, (clip,) = SVD.load(model), clips_of(SVD, 1)
    draws = Draws(SEED, clip.keys_B)
    encoded = family.encode_clips(clip)
    z = family.posterior(encoded).mode()
    e = Draws(SEED + 2, clip.keys_B).normal("noise", tuple(z.shape[1:]))  # of the grid's second place
    noisy = family.objective.corrupt(z, e, torch.tensor([2.0]))
    with torch.no_grad():
        answer = family.denoise(noisy, family.encode_conditions(clip, encoded, draws)).double()
    target = (e.double() - 2.0 * z.double()) / 5**0.5
    assert losses_on_grid(family, [clip], SIGMAS)[0, 1] == pytest.approx(float((answer - target).square().mean()), 1e-5)


def test_what_is_prepared_is_encoded_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, clips = SVD.load(model), clips_of(SVD, 2)
    prepared = [prepare(family, clip) for clip in clips]
    expected_NS = losses_on_grid(family, clips, SIGMAS)
    monkeypatch.setattr(noise_grid, "prepare", None)
    assert np.array_equal(losses_on_grid(family, prepared, SIGMAS), expected_NS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_has_a_grid_of_its_own_levels(case: Case, tmp_path: Path) -> None:
    family: Any = case.load(case.save(tmp_path))
    sigmas = levels_of(family.objective)
    assert len(sigmas) >= 5
    assert sigmas == sorted(sigmas)
    assert np.isfinite(sigmas).all()
    assert sigmas[0] < 0.5 < 5 < sigmas[-1]
    losses_NS = losses_on_grid(family, clips_of(case, 1), sigmas[::3])
    assert losses_NS.shape == (1, len(sigmas[::3]))
    assert np.isfinite(losses_NS).all()
