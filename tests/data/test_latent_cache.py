"""The latent cache: what comes out is what went in, and a cache of another recipe is never used."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svdtrain.data.latent_cache import CacheRecipe, LatentCache, LatentEntry
from svdtrain.foundation.errors import DataError, SystemFault

RECIPE = CacheRecipe(
    model="nano",
    encoders="ab12",
    dataset="cd34",
    frames=3,
    height=16,
    width=24,
    fps=7.0,
    windows=2,
    flip=False,
    dtype="float32",
)


def entry(seed: int = 0, *, scale: float = 1.0) -> LatentEntry:
    """Windows of frames (1, 3, 5) and (3, 5, 8)."""
    g = torch.Generator().manual_seed(seed)
    return LatentEntry(
        frames_F=torch.tensor([1, 3, 5, 8]),
        mean_FCHW=torch.randn(4, 4, 2, 3, generator=g) * scale,
        logvar_FCHW=torch.randn(4, 4, 2, 3, generator=g),
        starts_K=torch.tensor([1, 3]),
        images_KCHW=torch.randint(0, 256, (2, 3, 16, 24), generator=g, dtype=torch.uint8),
        embeddings_KLD=torch.randn(2, 1, 5, generator=g),
    )


def filled(folder: Path, recipe: CacheRecipe = RECIPE) -> LatentCache:
    cache = LatentCache(folder, recipe)
    assert cache.write_shard("train-000000", [("a", entry(0)), ("b@flip", entry(1))]) == 2
    return cache


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_a_window_takes_the_rows_of_its_frames(tmp_path: Path, dtype: str, tolerance: float) -> None:
    recipe = replace(RECIPE, dtype=dtype)
    filled(tmp_path, recipe)
    cache, truth = LatentCache(tmp_path, recipe), entry(1)
    assert ("b@flip" in cache, "c" in cache) == (True, False)
    for indices, rows, start in (((1, 3, 5), [0, 1, 2], 0), ((3, 5, 8), [1, 2, 3], 1)):
        mean, logvar, image, embedding = cache.read("b@flip").window(indices)
        assert mean.dtype == logvar.dtype == embedding.dtype == torch.float32
        pairs = (mean, truth.mean_FCHW[rows]), (logvar, truth.logvar_FCHW[rows])
        for got, wanted in (*pairs, (embedding, truth.embeddings_KLD[start])):
            assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()
        assert torch.equal(image, truth.images_KCHW[start])


def test_equal_entries_give_equal_bytes_and_plain_tars(tmp_path: Path) -> None:
    for name in ("one", "two"):
        filled(tmp_path / name)
    for file in ("train-000000.latents.tar", "train-000000.latents.idx.jsonl", "recipe.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with tarfile.open(tmp_path / "one" / "train-000000.latents.tar") as tar:
        assert [member.name for member in tar] == ["000000.latent.safetensors", "000001.latent.safetensors"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoders": "ef56"}, "encoders was 'ab12', now 'ef56'"),
        ({"height": 32, "windows": 4}, "height was 16, now 32; windows was 2, now 4"),
        ({"dtype": "float16"}, "dtype was 'float32', now 'float16'"),
        ({"dataset": "0"}, "dataset was 'cd34', now '0'"),
    ],
)
def test_a_stale_cache_is_refused_field_by_field(tmp_path: Path, change: dict[str, object], said: str) -> None:
    filled(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError) as caught:
        LatentCache(tmp_path, replace(RECIPE, **change))  # type: ignore[arg-type]
    assert said in caught.value.message
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}, "nothing is deleted"


def test_a_shard_that_broke_off_is_not_done(tmp_path: Path) -> None:
    def breaks() -> object:
        yield "a", entry()
        raise KeyboardInterrupt

    cache = LatentCache(tmp_path, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        cache.write_shard("train-000000", breaks())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
    assert not LatentCache(tmp_path, RECIPE).done("train-000000")
    filled(tmp_path)
    assert LatentCache(tmp_path, RECIPE).done("train-000000")


def test_damage_and_nonsense_are_refused_by_name(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    tar = tmp_path / "train-000000.latents.tar"
    content = bytearray(tar.read_bytes())
    content[cache.places["a"][1] + 600] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DataError, match="train-000000.latents.tar is damaged: the entry 'a' has changed"):
        cache.read("a")
    cache.read("b@flip")
    with pytest.raises(SystemFault, match="mean_FCHW is not finite as torch.float16"):
        LatentCache(tmp_path / "half", replace(RECIPE, dtype="float16")).write_shard("s", [("a", entry(scale=1e6))])
    nan = replace(entry(), logvar_FCHW=torch.full((4, 4, 2, 3), float("nan")))
    with pytest.raises(SystemFault, match="logvar_FCHW"):
        LatentCache(tmp_path / "nan", RECIPE).write_shard("s", [("a", nan)])
    (tmp_path / "train-000000.latents.idx.jsonl").write_text('{"key": 1')
    with pytest.raises(DataError, match=r"idx\.jsonl cannot be read"):
        LatentCache(tmp_path, RECIPE)
