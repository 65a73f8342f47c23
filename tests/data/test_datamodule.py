"""The run's place in the data is one integer that survives a restart, and refuses another dataset."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from svdtrain.data.datamodule import ClipDataModule
from svdtrain.data.manifest import WeightedSource
from svdtrain.data.shards import write_samples, write_shard
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch
from tests.data.test_manifest import prepared
from tests.data.videos import shard, video


def module(source: Path, **changes: Any) -> ClipDataModule:  # noqa: ANN401
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
        "max_batches": 10,
    }
    return ClipDataModule(str(source), **(plain | changes))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    shard(folder / "train-000000.tar", 5, frames=9)
    shard(folder / "held_out-000000.tar", 6, first=5, frames=9)
    return folder


class Reader(pl.LightningModule):
    """Notes the keys of its batches, as the training step would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys: list[tuple[str, ...]] = []

    def training_step(self, batch: ClipBatch) -> torch.Tensor:
        self.keys.append(batch.keys_B)
        return self.weight * batch.pixels_BTCHW.mean()

    def on_train_batch_end(self, outputs: object, batch: ClipBatch, batch_idx: int) -> None:  # noqa: ARG002
        self.trainer.datamodule.consumed_batches += 1  # type: ignore[attr-defined]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder: Path, steps: int) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_steps=steps,
        max_epochs=-1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [3, 7, 9])
def test_a_stopped_lightning_run_goes_on_with_the_next_batch(
    dataset: Path, tmp_path: Path, stop: int, workers: int
) -> None:
    whole = Reader()
    trainer(tmp_path, 10).fit(whole, datamodule=module(dataset))
    first, second = Reader(), Reader()
    begun = trainer(tmp_path, stop)
    begun.fit(first, datamodule=module(dataset, workers=workers))
    begun.save_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path, 10).fit(
        second, datamodule=module(dataset, workers=workers), ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert len(whole.keys) == 10
    assert (first.keys, second.keys) == (whole.keys[:stop], whole.keys[stop:])


def test_training_ends_when_the_batches_do(dataset: Path, tmp_path: Path) -> None:
    reader, data = Reader(), module(dataset, max_batches=4)
    data.consumed_batches = 1
    loader = data.train_dataloader()
    assert (len(loader), len(list(loader))) == (4, 3)
    trainer(tmp_path, 4).fit(reader, datamodule=module(dataset, max_batches=4))
    assert len(reader.keys) == 4


def test_state_round_trip_and_refusals(dataset: Path, tmp_path: Path) -> None:
    data = module(dataset)
    data.consumed_batches = 3
    state = data.state_dict()
    again = module(dataset)
    again.load_state_dict(state)
    assert again.consumed_batches == 3
    shard(tmp_path / "train-000000.tar", 8, frames=9)
    others = {
        "data.source": module(tmp_path),
        "seed": module(dataset, seed=2),
        "batch_size": module(dataset, batch_size=3),
        "order": module(dataset, shuffle_shards=2),
    }
    for what, other in others.items():
        with pytest.raises(DataError, match=rf"the run cannot go on: .*{what}.* was .*, now it is ") as caught:
            other.load_state_dict(state)
        assert caught.value.hint
        assert other.consumed_batches == 0
    changed = module(tmp_path, allow_change=True)
    changed.load_state_dict(state)
    assert changed.consumed_batches == 3


def test_ranks_share_a_global_batch_and_its_state(dataset: Path) -> None:
    whole = module(dataset, batch_size=4)
    parts = [module(dataset, batch_size=2) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        part.load_state_dict(whole.state_dict() | {"consumed_batches": 6})
    whole.consumed_batches = 6
    for batch, *halves in zip(*(data.train_dataloader() for data in (whole, *parts)), strict=True):
        assert batch.keys_B == halves[0].keys_B + halves[1].keys_B


@pytest.mark.parametrize(("devices", "size"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_a_run_goes_on_with_another_split_of_its_batch(dataset: Path, devices: int, size: int) -> None:
    before = module(dataset, batch_size=4)
    before.trainer = SimpleNamespace(global_rank=0, world_size=2)  # type: ignore[assignment]
    state = before.state_dict() | {"consumed_batches": 6}
    keys: list[tuple[str, ...]] = [()] * 4
    for rank in range(devices):
        data = module(dataset, batch_size=size)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=devices)  # type: ignore[assignment]
        data.load_state_dict(state)
        keys = [whole + batch.keys_B for whole, batch in zip(keys, data.train_dataloader(), strict=True)]
    expected = module(dataset, batch_size=8)
    assert keys == [batch.keys_B for batch in expected.train_dataloader()][6:]


def test_another_batch_is_told_what_would_fit(dataset: Path) -> None:
    state = module(dataset, batch_size=6).state_dict()
    data = module(dataset, batch_size=6)
    data.trainer = SimpleNamespace(global_rank=0, world_size=2)  # type: ignore[assignment]
    with pytest.raises(DataError, match="batch_size x devices was 6, now it is 12") as caught:
        data.load_state_dict(state)
    assert caught.value.hint == "data.batch_size=3 with 2 devices would do"


def test_held_out_clips_are_fixed_and_spread(dataset: Path) -> None:
    batches = module(dataset, seed=5).held_out(3)
    assert [batch.keys_B for batch in batches] == [(f"clip-{n:03d}@start=0.0000,flip=0",) for n in (5, 7, 9)]
    assert all(batch.pixels_BTCHW.shape == (1, 4, 3, 32, 48) for batch in batches)
    assert len(module(dataset).held_out(100)) == 6
    assert torch.equal(batches[0].pixels_BTCHW, module(dataset, seed=6).held_out(1)[0].pixels_BTCHW)


def test_workers_start_after_the_parent_has_decoded(dataset: Path) -> None:
    """A decoder's threads do not survive a fork: each worker must open its own."""
    data = module(dataset, workers=2, max_batches=4)
    (held_out,) = data.held_out(1)
    assert held_out.pixels_BTCHW.shape[0] == 1
    keys = [batch.keys_B for batch in data.train_dataloader()]
    assert keys == [batch.keys_B for batch in module(dataset, max_batches=4).train_dataloader()]


def test_faults_are_found_before_the_first_step(tmp_path: Path) -> None:
    shard(tmp_path / "train-000000.tar", 3, frames=9)
    shard(tmp_path / "held_out-000000.tar", 1, first=3, frames=3)
    message = r"clip 'clip-003' in .* is too short: 4 frames at 25 fps take 0\.12 s, it has 3 frames, 0\.08 s"
    with pytest.raises(DataError, match=message):
        module(tmp_path).setup("fit")
    with pytest.raises(DataError, match=r"clip-\d+' in .* has 25 fps, 50 are asked for"):
        module(tmp_path, fps=50).check()


def test_the_index_tells_before_the_first_step_which_clip_will_not_do(tmp_path: Path) -> None:
    """One among many, which no spread sample would meet."""
    good, short = video(frames=9), video(frames=3)
    clips = [
        (f"clip-{n:03d}", short if n == 301 else good, {"fps": 25, "frames": 3 if n == 301 else 9}) for n in range(600)
    ]
    write_shard(tmp_path / "train-000000.tar", clips)
    shard(tmp_path / "held_out-000000.tar", 1, frames=9)
    with pytest.raises(DataError, match=r"clip 'clip-301' in .* is too short: 4 frames"):
        module(tmp_path).setup("fit")


def test_sources_are_mixed_by_weight_and_keep_their_epochs(dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shard(other / "train-000000.tar", 3, first=50, frames=9)
    shard(other / "held_out-000000.tar", 1, first=60, frames=9)
    mixed: list[WeightedSource] = [WeightedSource(str(dataset), 3), WeightedSource([str(other)], 1)]
    data = module(dataset, batch_size=4, max_batches=15)
    data.source = mixed
    keys = [key.split("@")[0] for batch in data.train_dataloader() for key in batch.keys_B]
    ours = [key for key in keys if int(key.removeprefix("clip-")) < 50]
    assert len(ours) == 45
    for epoch in range(9):
        assert sorted(ours[5 * epoch : 5 * epoch + 5]) == [f"clip-{n:03d}" for n in range(5)]
    assert sorted([key for key in keys if key not in ours][:3]) == ["clip-050", "clip-051", "clip-052"]
    assert len(data.held_out(100)) == 7


def test_pictures_train_alone_or_beside_videos(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32)).save(buffer, "WEBP")
    samples = [(f"still-{n}", {"webp": buffer.getvalue()}) for n in range(4)]
    write_samples(tmp_path / "train-000000.tar", [*samples, *((f"v{n}", {"mp4": video(frames=9)}) for n in range(4))])
    write_samples(
        tmp_path / "held_out-000000.tar", [("x", {"webp": buffer.getvalue()}), ("y", {"mp4": video(frames=9)})]
    )
    lengths: dict[str, list[int]] = {}
    for name, changes in {"left out": {}, "beside": {"stills": True}, "alone": {"frames": 1}}.items():
        data = module(tmp_path, **changes)
        data.setup("fit")
        lengths[name] = [batch.pixels_BTCHW.shape[1] for batch in data.train_dataloader()]
        assert len(data.held_out(9)) == (2 if name == "alone" else 1)
    assert set(lengths["left out"]) == {4}
    assert set(lengths["beside"]) == {1, 4}
    assert set(lengths["alone"]) == {1}


def test_a_bucket_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path, bucket=[40, 48, 4])
    assert next(iter(module(tmp_path, buckets=True).train_dataloader())).pixels_BTCHW.shape == (2, 4, 3, 40, 48)
    with pytest.raises(DataError, match="bucket 40x48 of data.source does not suit the model: no multiples of 16"):
        module(tmp_path, buckets=True, multiple=16).setup("fit")


def test_description_and_time(dataset: Path) -> None:
    data = module(dataset)
    summary = data.describe()
    assert (summary.train_clips, summary.held_out_clips, summary.shards) == (5, 6, 2)
    assert (summary.train_sources, summary.held_out_sources) == (5, 6)
    assert summary.fingerprint == data.state_dict()["dataset"]
    next(iter(data.train_dataloader()))
    assert 0 < data.decode_seconds < 10
