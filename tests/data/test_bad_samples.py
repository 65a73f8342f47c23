"""Bad samples are replaced, written down once, counted by reason; and too many of them end the run in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.data.bad_samples import BadSamplePolicy, BadSamples
from svdtrain.data.datamodule import ClipDataModule
from svdtrain.data.isolation import DecodeChild
from svdtrain.data.shards import write_shard
from svdtrain.foundation.errors import DataError
from tests.data.test_datamodule import module
from tests.data.videos import shard, video


@pytest.fixture(scope="module")
def half_bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty clips of which four are texts, and two held out of which the first is."""
    folder = tmp_path_factory.mktemp("half_bad")
    good = video(frames=9)
    clips = [(f"clip-{n:03d}", b"I am a text" if n % 10 == 3 else good, {}) for n in range(40)]
    write_shard(folder / "train-000000.tar", clips)
    write_shard(folder / "held_out-000000.tar", [("bad", b"I am a text", {}), ("good", good, {})])
    return folder


def test_bad_samples_are_replaced_written_down_and_counted(half_bad: Path, tmp_path: Path) -> None:
    def epoch(first: int, **changes: Any) -> tuple[ClipDataModule, list[str]]:  # noqa: ANN401
        data = module(half_bad, bad=BadSamplePolicy(skip=True, most=0.5), max_batches=20, **changes)
        data.setup("fit")
        data.bad_samples.write_to(tmp_path / "bad_samples.jsonl")
        data.consumed_batches = first
        return data, [key for batch in data.train_dataloader() for key in batch.keys_B]

    data, keys = epoch(0, batches_per_step=2)
    assert len(keys) == 40
    text = (tmp_path / "bad_samples.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert {row["key"] for row in rows} == {f"clip-{n:03d}" for n in (3, 13, 23, 33)}
    assert data.bad_samples.reasons == {"no_media": len(rows)}
    for row in rows:
        assert (row["shard"], row["reason"], row["rank"]) == (str(half_bad / "train-000000.tar"), "no_media", 0)
        assert row["step"] == row["position"] // 4 + 1
    _, again = epoch(10, workers=1, batches_per_step=2)
    assert again == keys[20:]
    assert (tmp_path / "bad_samples.jsonl").read_text() == text, "a resumed run writes nothing twice"
    assert [batch.keys_B[0].split("@")[0] for batch in data.held_out(2)] == ["good"]


def test_lines_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    lines = b"\xff\n[1]\n" + b"[" * 100_000 + b'\n{"position": [1], "key": {}}\n{"position": 3'
    (tmp_path / "bad_samples.jsonl").write_bytes(lines)
    BadSamples(BadSamplePolicy()).write_to(tmp_path / "bad_samples.jsonl")
    assert (tmp_path / "bad_samples.jsonl").read_bytes() == lines


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_samples_end_the_run(half_bad: Path, workers: int) -> None:
    data = module(half_bad, bad=BadSamplePolicy(skip=True, most=0.05), max_batches=400, workers=workers)
    with pytest.raises(DataError) as caught:
        list(data.train_dataloader())
    found = re.match(
        r"(\d+) of (\d+) clips could not be used \(\1 no media\), the last: clip 'clip-.*", caught.value.message
    )
    assert found
    assert int(found[1]) == 10
    assert "data.max_bad_fraction=0.05" in caught.value.hint


def test_a_dataset_of_bad_clips_only_ends_before_the_first_step(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", [(f"t{n}", b"text", {}) for n in range(3)])
    shard(tmp_path / "held_out-000000.tar", 1, frames=2)
    with pytest.raises(
        DataError, match=r"^0 of 4 clips are usable: 3 no media, 1 too short; the last: clip 'clip-000' in"
    ):
        module(tmp_path, bad=BadSamplePolicy(skip=True)).setup("fit")


@pytest.mark.parametrize(
    ("program", "reason"), [("while True: pass", "hang"), ("import os; os.abort()", "crash")], ids=["hang", "crash"]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_hangs_or_crashes_the_decoder_is_replaced(
    half_bad: Path, tmp_path: Path, program: str, reason: str, workers: int
) -> None:
    """A child that serves as the real one does, but for one clip."""
    stub = tmp_path / "stub.py"
    stub.write_text(
        "import sys\n"
        "from svdtrain.data import isolation\n"
        "real = isolation.probe\n"
        "def probe(data, name):\n"
        "    if 'clip-005' in name:\n"
        f"        {program}\n"
        "    return real(data, name)\n"
        "isolation.probe = probe\n"
        "isolation.serve(*map(int, sys.argv[1:]))\n"
    )
    data = module(half_bad, bad=BadSamplePolicy(skip=True, most=0.5), max_batches=20, workers=workers)
    data.stream.child = DecodeChild(1.0, program=(str(stub),))
    keys = [key for batch in data.train_dataloader() for key in batch.keys_B]
    assert len(keys) == 40
    assert not any("clip-005" in key for key in keys)
    assert data.bad_samples.reasons[reason] >= 1
    data.stream.child.close()


def test_unverified_clips_are_decoded_apart_and_alike(half_bad: Path) -> None:
    policy = BadSamplePolicy(skip=True, most=0.5)
    apart, here = module(half_bad, bad=policy, deadline=30.0), module(half_bad, bad=policy)
    apart.setup("fit")
    assert [b.keys_B for b in apart.held_out(1)] == [b.keys_B for b in here.held_out(1)]
    for one, other in zip(apart.train_dataloader(), here.train_dataloader(), strict=True):
        assert one.keys_B == other.keys_B
        assert torch.equal(one.pixels_BTCHW, other.pixels_BTCHW)
    assert apart.stream.child
    apart.stream.child.close()
