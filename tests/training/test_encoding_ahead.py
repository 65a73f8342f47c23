"""Training from the disk cache is training from the videos: the same windows, pixels, encodings and losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svdtrain.data.datamodule import ClipDataModule
from svdtrain.data.latent_cache import LatentCache
from svdtrain.data.stream import load_encoded, load_item
from svdtrain.data.whole_clips import load_whole
from svdtrain.families.build import build_family
from svdtrain.families.protocol import ModelFamily
from svdtrain.training import build
from svdtrain.training.encoding_ahead import encode_whole, fill_shard, jobs_by_shard
from svdtrain.training.latents import find_latents, recipe_of
from svdtrain.types import ClipBatch
from tests.tiny_runs import fit_config


def fill(folder: Path, data: ClipDataModule, family: ModelFamily, *words: str, workers: int = 0) -> LatentCache:
    config = fit_config(Path("model"), Path("data"), *words)
    cache = LatentCache(folder, recipe_of(config, family))
    for shard in jobs_by_shard(data.stream, cache.recipe):
        fill_shard(cache, family, shard, data.stream, workers=workers, device="cpu", note=lambda *_: None)
    return cache


@pytest.mark.parametrize("words", [(), ("data.windows=2",), ("data.windows=1", "data.horizontal_flip=true")])
def test_every_window_is_the_videos_own(model: Path, dataset: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    config = fit_config(model, dataset, "data.cache_dtype=float32", *words)
    data, family = build.build_data(config), build_family(config.model)
    cache = fill(tmp_path, data, family, "data.cache_dtype=float32", *words)
    flips = (False, True) if config.data.horizontal_flip else (False,)
    starts = set[str]()
    for clip in data.stream.clips:
        for place, flip in [(place, flip) for place in (0.0, 0.3, 0.5, 0.7, 1.0) for flip in flips]:
            truth = load_item(clip, data.stream.lanes.samplings[0], 5, place=place, flip=flip)
            item = load_encoded(clip, data.stream.lanes.samplings[0], 5, cache, place=place, flip=flip)
            assert item.encoded
            assert item._replace(pixels_TCHW=None, encoded=None) == truth._replace(pixels_TCHW=None)  # type: ignore[arg-type]
            assert torch.equal(item.pixels_TCHW, truth.pixels_TCHW[:1])
            encoded = family.encode_clips(batch_of(truth.pixels_TCHW))
            wanted = (encoded.mean_BTCHW[0], encoded.logvar_BTCHW[0], encoded.embeddings_BLD[0])
            for got, want in zip(item.encoded, wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
            starts.add(item.key.split("@")[1])
    assert len(starts) == len(flips) * (config.data.windows or 3)


def batch_of(pixels_TCHW: torch.Tensor) -> ClipBatch:
    return ClipBatch(pixels_TCHW[None], torch.tensor([7.0]), torch.tensor([127.0]), ("k",), (0,))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_cached_and_uncached_losses_are_equal(
    model: Path, dataset: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    words = ("trainer.max_steps=6", "data.horizontal_flip=true", f"data.cache_dtype={dtype}", "data.cache=none")
    config = fit_config(model, dataset, *words)
    data, family = build.build_data(config), build_family(config.model)
    module = build.build_module(config, family)

    def losses(batches: Iterator[ClipBatch]) -> list[tuple[float, float]]:
        module.losses.clear()
        with torch.no_grad():
            for each in batches:
                module.training_step(each, 0)
        module.read(torch.zeros(()))
        return list(module.losses)

    uncached = losses(iter(data.train_dataloader()))
    data.stream.latents = fill(tmp_path, data, family, *words, workers=1)
    cached = losses(iter(data.train_dataloader()))
    assert [sigma for sigma, _ in cached] == [sigma for sigma, _ in uncached]
    torch.testing.assert_close(
        torch.tensor([loss for _, loss in cached]),
        torch.tensor([loss for _, loss in uncached]),
        rtol=tolerance,
        atol=0,
    )
    assert len(cached) == 12


def test_frames_that_cannot_be_encoded_alone_are_encoded_by_window(model: Path, dataset: Path) -> None:
    config = fit_config(model, dataset)
    data, family = build.build_data(config), build_family(config.model)
    whole = load_whole(data.stream.clips[0], data.stream.lanes.samplings[0])
    shared = encode_whole(family, whole, "cpu")
    family.spec = replace(family.spec, frames_alone=False)
    apart = encode_whole(family, whole, "cpu")
    assert (len(shared.mean_RCHW), len(apart.mean_RCHW)) == (5, 9)
    for place in (0.0, 0.5, 1.0):
        for one, other in zip(shared.window(place), apart.window(place), strict=True):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=0, atol=1e-5)


def test_a_resting_family_trains_and_samples_as_before(model: Path, dataset: Path) -> None:
    config = fit_config(model, dataset)
    data, family = build.build_data(config), build_family(config.model)
    requests = build.requests_from(config.model, data.held_out(1), 1, 0)
    before = family.sample(requests)[0]
    family.rest()
    assert (family.sample(requests)[0] == before).all()


def test_only_a_whole_cache_of_these_settings_is_used(
    model: Path, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = (f"data.cache_dir={tmp_path}",)
    config = fit_config(model, dataset, *words)
    data, family = build.build_data(config), build_family(config.model)
    assert find_latents(config, family, data.stream) is None
    assert not caplog.records, "nothing to tell: nobody has made one"
    cache = LatentCache(tmp_path, recipe_of(config, family))
    assert find_latents(config, family, data.stream) is None
    assert "lacks 5 of 5 entries" in caplog.text
    fill(tmp_path, data, family)
    found = find_latents(config, family, data.stream)
    assert found
    assert found.folder == cache.folder
    for other in ("data.windows=2", "data.fps=6"):
        config = fit_config(model, dataset, *words, other)
        assert find_latents(config, family, build.build_data(config).stream) is None
        assert f"{other.split('.')[1].split('=')[0]} was None, now" in caplog.text
    assert find_latents(fit_config(model, dataset, *words, "data.cache=memory"), family, data.stream) is None
