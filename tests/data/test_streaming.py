"""Streaming: every epoch each clip once, whatever the loader processes, and no list of clips beforehand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from svdtrain.data.bad_samples import BadSamplePolicy
from svdtrain.data.shards import write_samples
from svdtrain.data.streaming import StreamedBatches, StreamingDataModule
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch
from tests.data.videos import shard


def module(source: Path, **changes: Any) -> StreamingDataModule:  # noqa: ANN401
    plain: dict[str, Any] = {
        "frames": 4,
        "height": 32,
        "width": 48,
        "fps": None,
        "motion_bucket": None,
        "batch_size": 2,
        "workers": 0,
        "seed": 1,
        "horizontal_flip": True,
        "max_batches": 12,
        "shuffle_shards": 2,
    }
    return StreamingDataModule(str(source), **(plain | changes))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of three clips, and one held out."""
    folder = tmp_path_factory.mktemp("dataset")
    for number in range(4):
        shard(folder / f"train-{number:06d}.tar", 3, first=3 * number, frames=6)
    shard(folder / "held_out-000000.tar", 2, first=90, frames=6)
    return folder


def clips_of(batches: list[ClipBatch]) -> list[str]:
    return [key.split("@")[0] for batch in batches for key in batch.keys_B]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 1), (1, 2), (2, 0), (2, 2), (4, 0), (4, 2)])
def test_an_epoch_holds_each_clip_once(dataset: Path, world: int, workers: int) -> None:
    """24 clips are two epochs: for 1, 2 and 4 readers of equal shares; for 8, who share every shard, of unequal ones."""
    data = module(dataset, workers=workers)
    readers = world * max(1, workers)
    total = 12 // world
    ranks: list[list[ClipBatch]] = []
    for rank in range(world):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
        data.max_batches = total
        ranks.append(list(data.train_dataloader()))
    counts = Counter(clip for batches in ranks for clip in clips_of(batches))
    positions = sorted(position for batches in ranks for batch in batches for position in batch.positions_B)
    assert positions == list(range(24))
    assert counts == {f"clip-{number:03d}": 2 for number in range(12)} or readers == 8
    assert len(counts) == 12


def test_what_comes_is_a_function_of_the_seed(dataset: Path) -> None:
    one, again, other = (clips_of(list(module(dataset, seed=seed).train_dataloader())) for seed in (1, 1, 2))
    assert one == again != other
    assert one[:12] != one[12:]
    assert sorted(one[:12]) == sorted(one[12:])


def test_a_bad_clip_gives_its_place_to_the_next(dataset: Path, tmp_path: Path) -> None:
    for path in dataset.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_samples(tmp_path / "train-000009.tar", [("broken", {"mp4": b"no video", "json": b"{}"})])
    with pytest.raises(DataError, match="clip 'broken'"):
        list(module(tmp_path).train_dataloader())
    data = module(tmp_path, bad=BadSamplePolicy(skip=True, most=0.5))
    batches = list(data.train_dataloader())
    assert len(batches) == 12
    assert data.bad_samples.reasons.total() >= 1
    assert "broken" not in clips_of(batches)


def test_no_shard_is_looked_through_before_its_turn(dataset: Path, tmp_path: Path) -> None:
    for path in dataset.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "train-000009.tar").write_bytes(b"no tar")
    data = module(tmp_path)
    assert (data.describe().train_clips, data.describe().held_out_clips, data.describe().shards) == (None, 2, 6)
    assert data.held_out(1)[0].keys_B[0].startswith("clip-09")
    with pytest.raises(DataError, match=r"train-000009\.tar is no readable tar"):
        list(data.train_dataloader())


def test_without_held_out_shards_the_last_is_held_out(dataset: Path, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.tar").symlink_to(dataset / f"train-{number:06d}.tar")
    data = module(tmp_path)
    assert {clip.key for clip in data.manifest.held_out} == {"clip-003", "clip-004", "clip-005"}
    assert set(clips_of(list(data.train_dataloader()))) == {"clip-000", "clip-001", "clip-002"}
    with pytest.raises(DataError, match="holds one shard"):
        module(tmp_path / "0.tar").setup("fit")


def test_a_restart_goes_on_counting(dataset: Path) -> None:
    data = module(dataset)
    data.consumed_batches = 5
    batches = list(data.train_dataloader())
    assert [batch.positions_B[0] for batch in batches] == [10, 12, 14, 16, 18, 20, 22]
    assert isinstance(data.train_dataloader().dataset, StreamedBatches)
