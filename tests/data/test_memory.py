"""Memory of a process that decodes: bombs are refused before they go off, and many clips take no more than a few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.matrix import CASES, huge_picture, many_samples
from tests.data.videos import video

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

# Not ru_maxrss: that starts with what the parent had.
MEASURE = """
import re, sys
from svdtrain.data.decoding import decode_frames, probe
from svdtrain.foundation.errors import DataError
data = open(sys.argv[1], "rb").read()
try:
    info = probe(data, "x")
    decode_frames(data, [0, info.frames - 1] * {repeats}, "x", info, size={size})
    print("decoded")
except DataError as error:
    print(error.reason, error.message)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""
BOMBS = {
    "huge picture": (huge_picture, 1, None, "too_large x has pictures of 16384x8640"),
    "huge picture, VP8": (
        lambda: video("libvpx", "webm", frames=3).replace(
            b"\x9d\x01\x2a\x50\x00\x30\x00", b"\x9d\x01\x2a\xff\x3f\xff\x3f"
        ),
        1,
        None,
        "damaged x is damaged",
    ),
    "picture grows huge": (CASES["picture grows huge"].make, 1, None, "damaged x is damaged"),
    "fifty million samples": (lambda: many_samples(b"stsz"), 1, None, "too_large x declares 50,000,000"),
    "fifty million samples, fragmented": (lambda: many_samples(b"trun"), 1, None, "too_large x declares 50,000,"),
    "many frames": (video, 50_000, None, "too_large x: 100000 frames of 80x48 take 1,152,000,000 bytes"),
    "large frames": (video, 7, (8192, 8192), "too_large x: 14 frames of 8192x8192 take"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_under_500_mb(name: str, tmp_path: Path) -> None:
    make, repeats, size, said = BOMBS[name]
    (tmp_path / "bomb").write_bytes(make())
    code = MEASURE.format(repeats=repeats, size=size)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bomb"], capture_output=True, text=True, timeout=60)
    answer, megabytes = done.stdout.splitlines()
    assert answer.startswith(said)
    assert int(megabytes) < 500


MANY = """
import re, sys
from svdtrain.data.decoding import decode_frames, verified_info
data = open(sys.argv[1], "rb").read()
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
sizes = []
for number in range(240):
    copy = bytes(bytearray(data))
    info = verified_info(12, 25, 96, 160) if number % 2 else None
    decode_frames(copy, [0, 10 - number % 7], "x", info, size=(72, 120), reader=sys.argv[2])
    if number >= 40:
        sizes.append(resident())
print(min(sizes), max(sizes))
"""


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_memory_is_flat_over_200_clips(reader: str, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(video(frames=12, height=96, width=160) + bytes(1_000_000))
    done = subprocess.run([sys.executable, "-c", MANY, tmp_path / "clip", reader], capture_output=True, text=True)
    low, high = map(int, done.stdout.split())
    assert 0.05 * low * 1024 < 200 * 1_000_000, "a copy kept of each would show"
    assert high <= 1.05 * low
