"""The table of metrics: what each family can be measured by, what others bring, and memory that does not grow."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from svdtrain.evaluation.appearance import thumbnails
from svdtrain.evaluation.measuring import bank_of, embedded, measured
from svdtrain.evaluation.metrics import METRICS, Footage, absent, metric, metric_names
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import UsageError
from tests.evaluation.videos import panning
from tests.families.cases import CASES, Case
from tests.tiny_models import SIZE


def footage(right: float, seed: int = 0) -> Footage:
    video = panning(6, right, seed=seed)
    training = thumbnails(panning(6, 1, seed=5))
    buckets = tuple((100.0 * k, panning(4, k * right)) for k in (0.5, 1.0, 2.0))
    embeddings = np.random.default_rng(seed).normal(size=(6, 8))
    return Footage(video, 8.0, video[0], embeddings, training, buckets)


def test_each_metric_measures_and_says_what_is_better() -> None:
    clip, video = footage(1.0), footage(0.5, seed=1)
    values, embeddings = measured(video, clip, metric_names())
    assert set(values) == set(METRICS)
    assert all(isinstance(number, float) for number in values.values())
    assert values["motion_response"] == pytest.approx(100 * 0.5 / 128 * 8, rel=0.2)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(4), abs=1e-4)
    own, _ = measured(clip, clip, metric_names())
    assert {name for name, number in own.items() if number is None} == {
        name for name, one in METRICS.items() if not one.of_clips
    }


@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("svd", set()),
        ("i2vgen_xl", {"motion_response"}),
        ("unet3d", {"cmmd", "temporal_consistency", "first_frame_ssim", "motion_response"}),
        ("cogvideox_image", {"cmmd", "temporal_consistency", "motion_response"}),
    ],
)
def test_what_a_family_cannot_be_measured_by_is_said(family: str, missing: set[str]) -> None:
    reasons = absent(metric_names(), spec_of(family), buckets=3, training=10)
    assert set(reasons) == missing
    assert all(family in reason for reason in reasons.values())


def test_what_is_not_at_hand_is_said() -> None:
    reasons = absent(metric_names(), spec_of("svd"), buckets=0, training=0)
    assert reasons == {
        "motion_response": "motion_buckets=[60,127,200] samples each input so",
        "nearest_training_frame": "there are no training clips",
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames_are_embedded_where_the_spec_says_so(case: Case, tmp_path: Path) -> None:
    family = case.load(case.save(tmp_path))
    frames = panning(3, 1, wide=2 * SIZE)
    embeddings, first = embedded(family, frames), embedded(family, frames[:1])
    if not family.spec.embeds_images:
        assert embeddings is None
        return
    assert embeddings is not None
    assert first is not None
    assert embeddings.shape == (3, 32)
    assert first == pytest.approx(embeddings[:1], abs=1e-5)


def test_others_bring_metrics_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brightness.py").write_text(
        "from svdtrain.evaluation.metrics import Metric\n"
        "BRIGHTNESS = Metric('brightness', '', 'more', lambda video, clip: float(video.frames_THWC.mean()))\n"
    )
    info = tmp_path / "brightness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[svdtrain.metrics]\nbrightness = brightness:BRIGHTNESS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "brightness" in metric_names()
    video = footage(1.0)
    assert measured(video, video, ["brightness"]).values == {"brightness": round(float(video.frames_THWC.mean()), 6)}
    sys.modules.pop("brightness")


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(UsageError, match="no metric 'flikker'") as refused:
        metric("flikker")
    assert refused.value.hint == "did you mean 'flicker'?"


def one_of_many(seed: int) -> object:
    video = panning(9, 1.0, seed=seed)
    embeddings = np.random.default_rng(seed).normal(size=(9, 64))
    clip = Footage(video, 8.0, video[0], embeddings, thumbnails(video))
    return measured(clip, clip, metric_names())


def test_memory_does_not_grow_with_videos() -> None:
    """Of a clip whose frames and flow take 10 MB, a few kilobytes stay."""

    def peak_and_kept(clips: int) -> tuple[int, int]:
        tracemalloc.start()
        kept = [one_of_many(seed) for seed in range(clips)]
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept
        return peak, now

    one_of_many(0)
    (few_peak, _), (many_peak, many_kept) = peak_and_kept(2), peak_and_kept(6)
    assert many_peak < few_peak + 4 * 40_000
    assert many_kept < 6 * 40_000


def test_the_bank_of_training_frames_holds_thumbnails() -> None:
    videos = [panning(3, 1, seed=seed) for seed in range(4)]
    assert np.array_equal(bank_of(iter(videos)), np.concatenate([thumbnails(video) for video in videos]))
    assert bank_of([]).shape[0] == 0
