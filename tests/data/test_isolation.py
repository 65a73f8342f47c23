"""A decoder that hangs or dies costs its clip and nothing else, and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader, Dataset

from svdtrain.data.decoding import decode_frames, probe, verified_info
from svdtrain.data.isolation import DecodeChild
from svdtrain.foundation.errors import DataError, SystemFault
from tests.data.matrix import CASES, HARM, numbers
from tests.data.videos import video

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

STUB = """
import os, signal, sys, time
from svdtrain.data import isolation
real = isolation.decode_frames
def stub(data, indices, name, info=None, **options):
    {fault}
    return real(data, indices, name, info, **options)
isolation.decode_frames = stub
isolation.serve(*map(int, sys.argv[1:]))
"""
FAULTS = {
    "while 'spin' in name: pass": "hang",
    "time.sleep(600 * ('spin' in name))": "hang",
    "'spin' in name and (signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)), time.sleep(600))": "hang",
    "'spin' in name and os.abort()": "crash",
    "'spin' in name and os._exit(3)": "crash",
    "'spin' in name and os.kill(os.getpid(), signal.SIGSEGV)": "crash",
}


def stub(fault: str) -> tuple[str, str]:
    return "-c", STUB.replace("{fault}", fault)


def children() -> set[int]:
    """Processes below this one, zombies included."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def open_files() -> set[str]:
    """Of this one. A pipe or a socket has a name that no other ever has."""
    found: set[str] = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            found.add(f"{file.name} {file.readlink()}")
    return found


def held() -> set[int | str]:
    """What may be left behind. Only what has come since is: what other tests dropped may be collected meanwhile."""
    return {*children(), *open_files()}


def gone(pid: int, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_it_answers_what_the_reader_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = held()
    data, other = video(frames=60, g="20"), video(container="mpegts", height=64, width=64)
    with DecodeChild() as child:
        info = child.probe(data, "x")
        assert info == probe(data, "x")
        [pid] = children() - before
        for indices, size in (([30, 3], None), (range(60), None), ([59], (31, 53))):
            found = child.decode_frames(data, indices, "x", info, size=size)
            np.testing.assert_array_equal(found, decode_frames(data, indices, "x", info, size=size))
            assert found.flags.writeable
        np.testing.assert_array_equal(child.decode_frames(other, [7], "x"), decode_frames(other, [7], "x"))
        verified = verified_info(60, 25, 48, 80)
        np.testing.assert_array_equal(
            child.decode_frames(data, [7], "x", verified), decode_frames(data, [7], "x", verified)
        )
        assert children() - before == {pid}, "one child for all"
        command = psutil.Process(pid).cmdline()
        assert command[1:3] == ["-m", "svdtrain.data.isolation"], "spawned, not forked"
    assert not held() - before


@pytest.mark.parametrize("name", ["text", "only a header", "huge picture", "empty"])
def test_its_errors_are_the_readers(name: str) -> None:
    data = CASES[name].make()
    with pytest.raises(DataError) as here:
        probe(data, "x")
    with DecodeChild() as child, pytest.raises(DataError) as there:
        child.probe(data, "x")
    assert vars(there.value) == vars(here.value)


@pytest.mark.parametrize("name", ["H.264, edit list over 200 frames", "H.264, intra refresh", "H.264, MPEG-TS"])
def test_what_hangs_other_readers_is_read_in_five_seconds(name: str) -> None:
    data, case = CASES[name].make(), CASES[name]
    with DecodeChild(deadline=5) as child:
        indices = np.linspace(0, case.frames - 1, 4).round().astype(int).tolist()
        found = numbers(child.decode_frames(data, indices, name, child.probe(data, name)))
    assert found == [case.first + index for index in indices]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hang_or_crash_is_an_error_of_its_clip_alone(fault: str) -> None:
    data, before = video(frames=8), held()
    good = decode_frames(data, [3], "x")
    with DecodeChild(program=stub(fault)) as child:
        for _ in range(2):
            np.testing.assert_array_equal(child.decode_frames(data, [3], "good"), good)
            child.deadline = 1
            with pytest.raises(DataError, match="^spinning .* the decoder") as caught:
                child.decode_frames(data, [3], "spinning")
            assert caught.value.reason == FAULTS[fault]
            child.deadline = 60
            assert not held() - before, "killed and waited for"
        np.testing.assert_array_equal(child.decode_frames(data, [3], "good"), good)
    assert not held() - before


def test_how_a_child_died_is_said() -> None:
    with DecodeChild(program=stub("os.abort()")) as child, pytest.raises(DataError, match=r"decoder \(SIGABRT\)"):
        child.decode_frames(video(frames=8), [3], "x")


def test_a_fault_of_our_own_is_no_bad_clip() -> None:
    with DecodeChild(program=stub("raise KeyError('ours')")) as child:
        with pytest.raises(RuntimeError, match="KeyError: 'ours'"):
            child.decode_frames(video(frames=8), [3], "x")
        assert child.probe(video(frames=8), "x").frames == 8
    with (
        DecodeChild(program=("-c", "import nothing_of_that_name")) as child,
        pytest.raises(SystemFault, match=r"does not start: exit code 1"),
    ):
        child.probe(video(frames=8), "x")


def test_a_child_that_is_dropped_ends() -> None:
    before, child = held(), DecodeChild()
    child.probe(video(frames=8), "x")
    assert len(children() - before) == 1
    del child
    gc.collect()
    assert not held() - before


PARENT = """
import sys
from svdtrain.data.isolation import DecodeChild
child = DecodeChild(program=("-c", open(sys.argv[1]).read()))
data = open(sys.argv[2], "rb").read()
child.decode_frames(data, [3], "good")
child.deadline = 1
print(child._running._process.pid, flush=True)
if {busy}:
    child.decode_frames(data, [3], "spinning")
sys.stdin.read()
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, busy: bool) -> None:
    """Idle at once; busy at its deadline."""
    (tmp_path / "stub.py").write_text(stub("while 'spin' in name: pass")[1])
    (tmp_path / "video").write_bytes(video(frames=8))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(busy=busy), tmp_path / "stub.py", tmp_path / "video"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    time.sleep(0.3)
    parent.kill()
    parent.communicate()
    assert gone(pid)


def test_a_fork_takes_a_child_of_its_own() -> None:
    data = video(frames=8)
    with DecodeChild() as child:
        child.probe(data, "x")
        before = children()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                read = child.probe(data, "y").frames == 8 and child.decode_frames(data, [3], "y").any()
                code = 0 if read and len(children()) == 1 else 2
                child.close()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert not children() - before, "the parent's child lives, the fork's does not"
        assert child.probe(data, "z").frames == 8


class OneClip(Dataset[int]):
    """Decodes in a child of whichever worker asks."""

    def __init__(self, data: bytes) -> None:
        self.data, self.child = data, DecodeChild()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return int(self.child.decode_frames(self.data, [index], "x").shape[0])


def test_workers_of_a_loader_have_children() -> None:
    """They are daemons, which multiprocessing allows no processes of their own."""
    before, clips = children(), OneClip(video(frames=8))
    assert [int(batch) for batch in DataLoader(clips, num_workers=2)] == [1] * 6
    assert all(gone(pid) for pid in children() - before)


def test_a_copy_for_another_process_has_no_child_yet() -> None:
    with DecodeChild(deadline=7) as child:
        child.probe(video(frames=8), "x")
        before = children()
        copied = copy.copy(child)
        copied.close()
        assert (copied.deadline, children() - before) == (7, set())


def test_fuzzed_files_are_counted_and_survived() -> None:
    draw, counts = random.Random(0), Counter[str]()
    bases = [video(frames=12), video("mpeg4", "avi", frames=12), video("libx265", frames=12), HARM["a hole"](video())]
    before = children()
    with DecodeChild(deadline=60) as child:
        for turn in range(60):
            data = bytearray(bases[turn % 4])
            for _ in range(1 + turn % 9):
                data[draw.randrange(12, len(data))] = draw.randrange(256)
            try:
                info = child.probe(bytes(data), "x")
                child.decode_frames(bytes(data), range(info.frames), "x", info)
                counts["read"] += 1
            except DataError as error:
                counts[error.reason] += 1
    assert counts.keys() <= {"read", "damaged", "no_media", "too_large", "hang", "crash"}
    assert counts["read"] > 3
    assert counts["damaged"] > 10
    assert not children() - before


def test_signals_that_a_worker_ignores_do_not_save_a_child() -> None:
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    try:
        with DecodeChild(deadline=1, program=stub("while True: pass")) as child:
            with pytest.raises(DataError) as caught:
                child.decode_frames(video(frames=8), [3], "x")
            assert caught.value.reason == "hang"
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
