"""Errors of loader processes arrive whole, and none of the processes outlives them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.test_stream import table_of
from tests.data.videos import shard

WORKER_FAULTS = {
    "a bad clip": ("raise DataError('clip is torn', 'mend it')", "DataError clip is torn | mend it"),
    "a full disk": ("raise SystemFault('disk is full', 'free space')", "SystemFault disk is full | free space"),
}


@pytest.mark.parametrize("case", WORKER_FAULTS)
def test_a_workers_error_arrives_whole_and_the_process_ends(case: str, tmp_path: Path) -> None:
    """Workers ignore signals, so that nobody but the loader can end them."""
    fault, said = WORKER_FAULTS[case]
    (tmp_path / "clips.pickle").write_bytes(pickle.dumps(table_of(shard(tmp_path / "a.tar", 4, frames=9))))
    program = f"""
import pickle, svdtrain.data.stream as stream
from svdtrain.foundation.errors import DataError, SystemFault
from tests.data.test_stream import ClipLoader, GlobalBatches, order_of, stream_of
def torn(*_, **__):
    {fault}
stream.load_item = torn
clips = stream_of(pickle.load(open({str(tmp_path / "clips.pickle")!r}, "rb")), workers=1)
kept = iter(ClipLoader(clips, GlobalBatches(order_of(clips, 4), total=3), workers=1))
try:
    next(kept)
except (DataError, SystemFault) as error:
    print(type(error).__name__, error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == said, done.stderr
