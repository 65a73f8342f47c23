"""The run's place in the data is one integer that survives a restart, and refuses another dataset."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from svdtrain.data.datamodule import ClipDataModule
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch
from tests.data.videos import REAL_CLIPS, shard, video

ROOT = Path(__file__).parents[2]


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
    }
    for what, other in others.items():
        with pytest.raises(DataError, match=rf"the run cannot go on: .*{what}.* was .*, now it is ") as caught:
            other.load_state_dict(state)
        assert caught.value.hint
        assert other.consumed_batches == 0


def test_ranks_share_a_global_batch_and_its_state(dataset: Path) -> None:
    whole = module(dataset, batch_size=4)
    parts = [module(dataset, batch_size=2) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        part.load_state_dict(whole.state_dict() | {"consumed_batches": 6})
    whole.consumed_batches = 6
    for batch, *halves in zip(*(data.train_dataloader() for data in (whole, *parts)), strict=True):
        assert batch.keys_B == halves[0].keys_B + halves[1].keys_B


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


def test_description_and_time(dataset: Path) -> None:
    data = module(dataset)
    summary = data.describe()
    assert (summary.train_clips, summary.held_out_clips, summary.shards) == (5, 6, 2)
    assert (summary.train_sources, summary.held_out_sources) == (5, 6)
    assert summary.fingerprint == data.state_dict()["dataset"]
    next(iter(data.train_dataloader()))
    assert 0 < data.decode_seconds < 10


def pack(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "pack_clips.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_folder_of_videos_becomes_a_dataset(tmp_path: Path) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "A long.name.MP4").write_bytes(video(frames=110))
    (folder / "deep" / "b.avi").write_bytes(video("mpeg4", "avi", frames=100))
    (folder / "deep" / "short.mp4").write_bytes(video(frames=9))
    (folder / "deep" / "text.mp4").write_text("no video")
    (folder / "notes.txt").write_text("no video either")
    done = pack(folder, out, "--seconds", 2, "--fps", 12.5)
    assert done.returncode == 0, done.stderr
    assert "skipped: deep/text.mp4 is no video" in done.stdout
    assert "skipped: deep/short.mp4 is too short: 9 frames, 0.32 s" in done.stdout
    data = module(out, frames=12)
    data.check()
    summary = data.describe()
    assert (summary.train_clips + summary.held_out_clips, summary.train_sources, summary.held_out_sources) == (4, 1, 1)
    assert {clip.fps for clip in data.manifest.train + data.manifest.held_out} == {12.5}
    again = pack(folder, out)
    assert (again.returncode, again.stderr.count("\n")) == (3, 2)
    assert "error: " in again.stderr


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="needs the real clips")
def test_real_clips_become_a_dataset(tmp_path: Path) -> None:
    done = pack(REAL_CLIPS, tmp_path / "out", "--fps", 10, "--short-side", 64)
    assert done.returncode == 0, done.stderr
    for name in ("decord_corrupted.mp4", "decord_video_90.mov"):
        assert f"skipped: {name} is " in done.stdout
    data = module(tmp_path / "out", frames=8, height=64, width=64)
    data.check()
    assert data.describe().train_sources + data.describe().held_out_sources == 4
    assert next(iter(data.train_dataloader())).pixels_BTCHW.shape == (2, 8, 3, 64, 64)
