"""The latent cache: what comes out is what went in, and a cache of another recipe is never used."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_tensors

from svdtrain.data.clip import Clip, Shard
from svdtrain.data.latent_cache import CacheRecipe, LatentCache, LatentEntry
from svdtrain.foundation.errors import DataError, SystemFault

RECIPE = CacheRecipe(
    model="nano",
    encoders="ab12",
    frames=3,
    height=16,
    width=24,
    buckets=False,
    fps=7.0,
    windows=2,
    flip=False,
    captions=False,
    dtype="float32",
)
ROWS = torch.tensor([[0, 1, 2], [1, 2, 3]])


def entry(seed: int = 0, *, scale: float = 1.0) -> LatentEntry:
    """Two windows that share two of four latent frames."""
    g = torch.Generator().manual_seed(seed)
    return LatentEntry(
        mean_RCHW=torch.randn(4, 4, 2, 3, generator=g) * scale,
        logvar_RCHW=torch.randn(4, 4, 2, 3, generator=g),
        rows_KT=ROWS,
        starts_K=torch.tensor([0.1, 0.3], dtype=torch.float64),
        fps=torch.tensor([7.0], dtype=torch.float64),
        images_KCHW=torch.randint(0, 256, (2, 3, 16, 24), generator=g, dtype=torch.uint8),
        embeddings_KLD=torch.randn(2, 1, 5, generator=g),
    )


def filled(folder: Path, recipe: CacheRecipe = RECIPE) -> LatentCache:
    cache = LatentCache(folder, recipe)
    bad = DataError("clip 'x' is damaged", reason="damaged")
    assert cache.write_shard("train-000000", [("a", entry(0)), ("x", bad), ("b@flip", entry(1))]) == 3
    return cache


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_a_window_takes_its_rows(tmp_path: Path, dtype: str, tolerance: float) -> None:
    recipe = replace(RECIPE, dtype=dtype)
    filled(tmp_path, recipe)
    cache, truth = LatentCache(tmp_path, recipe), entry(1)
    assert ("b@flip" in cache, "x" in cache, "c" in cache) == (True, True, False)
    for place, k in ((0.0, 0), (0.49, 0), (0.5, 1), (1.0, 1)):
        window = cache.read("b@flip").window(place)
        assert (window.start, window.fps) == (float(truth.starts_K[k]), 7.0)
        pairs = (window.mean_TCHW, truth.mean_RCHW[ROWS[k]]), (window.logvar_TCHW, truth.logvar_RCHW[ROWS[k]])
        for got, wanted in (*pairs, (window.embedding_LD, truth.embeddings_KLD[k])):
            assert got.dtype == torch.float32
            assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()
        assert torch.equal(window.image_CHW, truth.images_KCHW[k])


def test_equal_entries_give_equal_bytes_and_plain_tars(tmp_path: Path) -> None:
    for name in ("one", "two"):
        filled(tmp_path / name)
    for file in ("train-000000.latents.tar", "train-000000.latents.idx.jsonl", "recipe.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with tarfile.open(tmp_path / "one" / "train-000000.latents.tar") as tar:
        assert [member.name for member in tar] == ["000000.latent.safetensors", "000002.latent.safetensors"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoders": "ef56"}, "encoders was 'ab12', now 'ef56'"),
        ({"height": 32, "windows": None}, "height was 16, now 32; windows was 2, now None"),
        ({"dtype": "float16"}, "dtype was 'float32', now 'float16'"),
    ],
)
def test_a_stale_cache_is_refused_field_by_field(tmp_path: Path, change: dict[str, object], said: str) -> None:
    filled(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError) as caught:
        LatentCache(tmp_path, replace(RECIPE, **change))  # type: ignore[arg-type]
    assert said in caught.value.message
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}, "nothing is deleted"


def test_an_entrys_name_is_all_that_decides_it(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    path.write_bytes(b"one")
    known = Clip("a", Shard(path), 512, 9, "a", sha256="0" * 64, bucket=(16, 24, 3))
    one = RECIPE.entry_id(known, flip=False)
    moved = replace(known, key="b", shard=Shard(tmp_path / "other.tar"), offset=1024)
    assert RECIPE.entry_id(moved, flip=False) == one, "the same video, wherever it lies"
    others = [
        RECIPE.entry_id(known, flip=True),
        RECIPE.entry_id(replace(known, sha256="1" * 64), flip=False),
        replace(RECIPE, encoders="other").entry_id(known, flip=False),
        replace(RECIPE, buckets=True).entry_id(known, flip=False),
        replace(RECIPE, captions=True).entry_id(replace(known, caption="a cat"), flip=False),
        replace(RECIPE, captions=True).entry_id(replace(known, caption="a dog"), flip=False),
    ]
    unknown = replace(known, sha256=None)
    others += [RECIPE.entry_id(unknown, flip=False), RECIPE.entry_id(replace(unknown, offset=1), flip=False)]
    os.utime(path, ns=(1, 1))
    others += [RECIPE.entry_id(unknown, flip=False)]
    assert len({one, *others}) == len(others) + 1


def test_names_are_those_that_caches_on_disk_have() -> None:
    """Another id for the same clip would have every cache made again."""
    clip = Clip("a", Shard(Path("x.tar")), 512, 9, "a", sha256="0" * 64, bucket=(16, 24, 3), caption="a cat")
    assert RECIPE.entry_id(clip, flip=False) == "5c0bd67cd0ab882d793cde03d79e7989"
    told = replace(RECIPE, buckets=True, captions=True, trigger="sks")
    assert told.entry_id(clip, flip=True) == "b5d6d921b5514899f99faceb5a33e66f"


def test_a_shard_that_broke_off_is_not_there(tmp_path: Path) -> None:
    def breaks() -> object:
        yield "a", entry()
        raise KeyboardInterrupt

    cache = LatentCache(tmp_path, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        cache.write_shard("train-000000", breaks())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
    assert "a" not in LatentCache(tmp_path, RECIPE)
    filled(tmp_path)
    assert "a" in LatentCache(tmp_path, RECIPE)


def test_damage_and_nonsense_are_refused_by_name(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    tar = tmp_path / "train-000000.latents.tar"
    content = bytearray(tar.read_bytes())
    content[cache.places["a"][1] + 600] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DataError, match=r"train-000000.latents.tar is damaged: the entry 'a' has changed"):
        cache.read("a")
    cache.read("b@flip")
    with pytest.raises(DataError, match="clip 'x' is damaged") as caught:
        cache.read("x")
    assert caught.value.reason == "damaged"
    with pytest.raises(DataError, match="has no entry 'c'"):
        cache.read("c")
    with pytest.raises(SystemFault, match="mean_RCHW is not finite as torch.float16"):
        LatentCache(tmp_path / "half", replace(RECIPE, dtype="float16")).write_shard("s", [("a", entry(scale=1e6))])
    nan = replace(entry(), logvar_RCHW=torch.full((4, 4, 2, 3), float("nan")))
    with pytest.raises(SystemFault, match="logvar_RCHW"):
        LatentCache(tmp_path / "nan", RECIPE).write_shard("s", [("a", nan)])
    (tmp_path / "train-000000.latents.idx.jsonl").write_text('{"key": 1')
    with pytest.raises(DataError, match=r"idx\.jsonl cannot be read"):
        LatentCache(tmp_path, RECIPE)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *(("recipe.json", text) for text in ("[1]", "5", "{", "[" * 100_000)),
        *(("train-000000.latents.idx.jsonl", text) for text in ("5", "[]", '{"key": 1}', "[" * 100_000)),
        ("train-000000.latents.idx.jsonl", '{"key": "a", "offset": -1, "size": 5, "sha256": ""}'),
        ("train-000000.latents.idx.jsonl", '{"key": "a", "refused": ["x"], "reason": "damaged"}'),
    ],
    ids=count(),
)
def test_what_is_no_cache_is_named(tmp_path: Path, file: str, text: str) -> None:
    filled(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=f"{file} cannot be read: ") as caught:
        LatentCache(tmp_path, RECIPE)
    assert len(caught.value.message) < 200 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("rows_KT", ROWS + 1),
        ("rows_KT", ROWS[:1]),
        ("mean_RCHW", torch.zeros(4, 4, 2)),
        ("logvar_RCHW", torch.zeros(3, 4, 2, 3)),
        ("starts_K", torch.zeros(0, dtype=torch.float64)),
        ("fps", torch.tensor([0.0])),
        ("images_KCHW", torch.zeros(1, 3, 16, 24, dtype=torch.uint8)),
        ("embeddings_KLD", torch.tensor(1.0)),
        ("other", torch.tensor(1.0)),
        ("", torch.tensor(1.0)),
    ],
)
def test_an_entry_that_no_encoder_gives_is_named(tmp_path: Path, name: str, odd: torch.Tensor) -> None:
    content = save_tensors({key: one.contiguous() for key, one in vars(entry()).items()} | {name: odd})[
        : None if name else -9
    ]
    cache = filled(tmp_path)
    (tmp_path / "forged.tar").write_bytes(content)
    cache.places["a"] = ("forged.tar", 0, len(content), hashlib.sha256(content).hexdigest())
    with pytest.raises(DataError, match="the entry 'a' is none: "):
        cache.read("a")


def test_what_was_removed_or_never_finished_is_made_again(tmp_path: Path) -> None:
    filled(tmp_path)
    index, tar = tmp_path / "train-000000.latents.idx.jsonl", tmp_path / "train-000000.latents.tar"
    (tmp_path / ".partial-0123-other.latents.idx.jsonl").write_bytes(index.read_bytes().replace(b'"a"', b'"z"'))
    assert "z" not in LatentCache(tmp_path, RECIPE)
    content = tar.read_bytes()
    tar.write_bytes(content[:2000])
    assert "a" not in LatentCache(tmp_path, RECIPE)
    tar.unlink()
    assert "a" not in LatentCache(tmp_path, RECIPE)
    assert "a" in filled(tmp_path)
