"""What two readers do not read alike is never called verified."""

from __future__ import annotations

import pytest

from svdtrain.data.decoding import every_frame, probe
from svdtrain.data.encoding import encode_mp4
from svdtrain.foundation.errors import DataError
from svdtrain.preparation import verification
from svdtrain.preparation.records import UnusableSource
from svdtrain.preparation.verification import _compare, read_back
from tests.data.videos import cut_without_decoding, video
from tests.preparation.folders import waves


@pytest.mark.parametrize("frames", [1, 2, 24, 25, 60])
def test_our_own_clips_are_read_alike(frames: int) -> None:
    assert read_back(encode_mp4(waves(0, frames), 24), frames, "the clip")


def test_a_lost_frame_is_found() -> None:
    with pytest.raises(UnusableSource, match="26 frames were written, 25 are read") as caught:
        read_back(encode_mp4(waves(0, 25), 24), 26, "the clip")
    assert caught.value.reason == "readers_disagree"


@pytest.mark.parametrize(
    "data",
    [
        video("libx265", frames=60, params="open-gop=1:keyint=12:log-level=none"),
        cut_without_decoding(video(frames=60, g="30"), 0.8),
    ],
    ids=["open GOP", "edit list"],
)
def test_what_decord_would_read_wrongly_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        read_back(data, 60, "the clip")


def test_damage_is_found() -> None:
    data = bytearray(encode_mp4(waves(0, 60), 24))
    place = data.index(b"mdat") + 4000
    data[place : place + 400] = bytes(400)
    with pytest.raises(DataError):
        read_back(bytes(data), 60, "the clip")


def test_one_different_bit_in_one_frame_is_found() -> None:
    data = encode_mp4(waves(0, 30), 24)
    expected = [picture_HWC.copy() for _, picture_HWC in every_frame(data, "it")]
    _compare(data, 6, expected[6:30], probe(data, "it"), "the clip")
    expected[17][3, 4, 0] ^= 1
    with pytest.raises(UnusableSource, match="frame 17 differs between PyAV and decord"):
        _compare(data, 6, expected[6:30], probe(data, "it"), "the clip")


@pytest.mark.parametrize("most", [1, 3 * 48 * 64 * 5])
def test_large_pictures_are_compared_in_small_groups(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MOST_BYTES", most)
    assert read_back(encode_mp4(waves(0, 30), 24), 30, "the clip")
