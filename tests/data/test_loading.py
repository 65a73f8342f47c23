"""Errors of loader processes arrive whole, and none of the processes outlives them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from svdtrain.data.clip import Clip
from svdtrain.data.loading import ClipLoader, GlobalBatches
from svdtrain.data.table import ClipTable
from svdtrain.foundation.errors import DataError
from tests.data.test_stream import order_of, stream_of, table_of
from tests.data.videos import shard

WORKER_FAULTS = {
    "a bad clip": ("DataError('clip is torn', 'mend it')", "DataError clip is torn | mend it"),
    "a full disk": ("SystemFault('disk is full', 'free space')", "SystemFault disk is full | free space"),
}


def test_a_workers_error_arrives_whole_and_the_process_ends(tmp_path: Path) -> None:
    """Workers ignore signals, so that nobody but the loader can end them."""
    faults, said = zip(*WORKER_FAULTS.values(), strict=True)
    (tmp_path / "clips.pickle").write_bytes(pickle.dumps(table_of(shard(tmp_path / "a.tar", 4, frames=9))))
    program = f"""
import pickle, svdtrain.data.stream as stream
from svdtrain.foundation.errors import DataError, SystemFault
from tests.data.test_stream import ClipLoader, GlobalBatches, order_of, stream_of
def torn(*_, **__):
    raise fault
stream.load_item = torn
clips = stream_of(pickle.load(open({str(tmp_path / "clips.pickle")!r}, "rb")), workers=1)
kept = []
for fault in ({", ".join(faults)}):
    kept.append(iter(ClipLoader(clips, GlobalBatches(order_of(clips, 4), total=3), workers=1)))
    try:
        next(kept[-1])
    except (DataError, SystemFault) as error:
        print(type(error).__name__, error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == list(said), done.stderr


@pytest.fixture
def clips(tmp_path: Path) -> ClipTable:
    return table_of(shard(tmp_path / "a.tar", 7, frames=9))


def loader_of(clips: ClipTable, workers: int) -> ClipLoader:
    stream = stream_of(clips, workers=workers)
    return ClipLoader(stream, GlobalBatches(order_of(stream, 4), first=2, total=12), workers=workers)


def kill_workers() -> None:
    for child in psutil.Process().children():
        if child.cmdline() == psutil.Process().cmdline():
            os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_is_replaced_and_changes_nothing(
    clips: ClipTable, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    wanted, found = list(loader_of(clips, 0)), list[object]()
    loader = loader_of(clips, workers)
    before = signal.getsignal(signal.SIGCHLD)
    for number, batch in enumerate(loader):
        if number == 1:
            kill_workers()
        assert batch.keys_B == wanted[number].keys_B
        assert torch.equal(batch.pixels_BTCHW, wanted[number].pixels_BTCHW)
        found.append(batch)
    assert len(found) == len(wanted) == 10
    [line] = caplog.messages
    assert "a loading process was killed by SIGKILL at clip 'clip-" in line
    assert "another one takes its place" in line
    assert signal.getsignal(signal.SIGCHLD) == before, "a training step is not interrupted"
    assert [batch.keys_B for batch in loader][0] == wanted[0].keys_B, "the next round begins where this one did"


def test_a_worker_that_is_killed_again_ends_the_run(clips: ClipTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each clip from the third batch on."""
    real, main = Clip.read, os.getpid()
    seen: list[Clip] = []

    def read(clip: Clip) -> bytes:
        seen.append(clip)
        if len(seen) > 12 and os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(clip)

    monkeypatch.setattr(Clip, "read", read)
    with pytest.raises(DataError, match="^a loading process was killed by SIGKILL at clip 'clip-.*a.tar") as caught:
        list(loader_of(clips, 1))
    assert "data.workers=0 tells" in caught.value.hint
