"""Near duplicates: re-encodes, sizes and light changes are found, other clips are not, and no pair is missed."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from svdtrain.data.decoding import decode_frames, probe
from svdtrain.generation.video_files import encode_mp4
from svdtrain.preparation.duplicates import groups, signature


def clip(seed: int, frames: int = 9) -> np.ndarray:
    """uint8 [T, 96, 160, 3]: soft random pictures, the later ones turning into another."""
    rough = np.random.default_rng(seed).integers(0, 256, (2, 12, 20, 3), np.uint8)
    first, last = (cv2.resize(one, (160, 96), interpolation=cv2.INTER_CUBIC).astype(float) for one in rough)
    shares = np.linspace(0, 1, frames)
    return np.stack([(first * (1 - share) + last * share) for share in shares]).clip(0, 255).astype(np.uint8)


def bits(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return max((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


def changed(clip_THWC: np.ndarray, how: str) -> np.ndarray:
    if how == "re-encoded":
        data = encode_mp4(clip_THWC, 8)
        return decode_frames(data, range(len(clip_THWC)), "clip", probe(data, "clip"))
    if how == "half the size":
        return np.stack([cv2.resize(f, (80, 48), interpolation=cv2.INTER_AREA) for f in clip_THWC])
    return (clip_THWC * 0.7 + 20).astype(np.uint8)


@pytest.mark.parametrize("how", ["re-encoded", "half the size", "darker and flatter"])
def test_a_changed_copy_is_near_and_another_clip_is_far(how: str) -> None:
    own = signature(clip(0))
    assert bits(own, signature(changed(clip(0), how))) <= 4
    assert min(bits(own, signature(clip(seed))) for seed in range(1, 20)) > 12


def test_all_three_frames_count() -> None:
    reversed_end = np.concatenate([clip(0)[:5], clip(1)[5:]])
    assert bits(signature(clip(0)), signature(reversed_end)) > 12
    assert groups({"a": signature(clip(0)), "b": signature(reversed_end)}, 6) == []


def test_a_bit_is_set_where_it_grows_lighter() -> None:
    ramp = np.arange(0, 144, dtype=np.uint8).reshape(1, 1, 144, 1).repeat(64, axis=1).repeat(3, axis=3)
    assert signature(ramp) == ((1 << 64) - 1,) * 3
    assert signature(ramp[:, :, ::-1].copy()) == (0, 0, 0)


HALF = 0x5555555555555555


def test_groups_are_sorted_and_chains_are_one_group() -> None:
    def near(first: int, second: int = 0) -> tuple[int, ...]:
        return HALF ^ first, HALF ^ second, HALF

    alike = {"d": near(0b0000), "b": near(0b0011), "a": near(0b1111), "z": near(15 << 60, 5), "y": near(15 << 60, 5)}
    lone = {"c": near(0xFFFF << 20), "e": near(0b0000, 0xFF << 30)}
    assert groups({**alike, **lone}, 2) == [["a", "b", "d"], ["y", "z"]]
    assert groups({**alike, **lone}, 0) == [["y", "z"]]
    assert groups({}, 3) == []


def test_a_small_thing_at_another_place_of_a_plain_picture_is_another_clip() -> None:
    clips_NTHWC = np.full((4, 3, 96, 160, 3), 90, np.uint8)
    for number, (left, light) in enumerate(((10, 200), (10, 180), (60, 200), (110, 200))):
        clips_NTHWC[number, :, 40:55, left : left + 15] = light
    signatures = {str(number): signature(clip_THWC) for number, clip_THWC in enumerate(clips_NTHWC)}
    assert bits(signatures["0"], signatures["3"]) <= 4
    assert groups(signatures, 4) == [["0", "1"]]
    inverted = {key: tuple(hash_ ^ (1 << 64) - 1 for hash_ in hashes) for key, hashes in signatures.items()}
    assert groups(inverted, 4) == [["0", "1"]]


def close(a: int, b: int, most_bits: int) -> bool:
    telling = min((a | b).bit_count(), 64 - (a & b).bit_count(), 32)
    return (a ^ b).bit_count() <= most_bits * telling / 32


def slowly(signatures: dict[str, tuple[int, ...]], most_bits: int) -> list[list[str]]:
    """Every pair compared."""
    found = {key: {key} for key in signatures}
    for one, other in itertools.combinations(signatures, 2):
        if all(close(a, b, most_bits) for a, b in zip(signatures[one], signatures[other], strict=True)):
            joined = found[one] | found[other]
            found |= dict.fromkeys(joined, joined)
    return sorted({tuple(sorted(group)) for group in found.values() if len(group) > 1})  # type: ignore[return-value]


@pytest.mark.parametrize("most_bits", [0, 1, 5, 10, 31, 63])
def test_the_same_groups_as_by_comparing_every_pair(most_bits: int) -> None:
    draw = np.random.default_rng(most_bits)
    made: dict[str, tuple[int, ...]] = {}
    for number in range(60):
        hashes = [int(one) for one in draw.integers(0, 2**64, 3, np.uint64)]
        for copy in range(3):
            flips = [sum(1 << int(b) for b in draw.choice(64, most_bits // 2 + copy, replace=False)) for _ in range(3)]
            made[f"{number:02d}-{copy}"] = tuple(one ^ flip for one, flip in zip(hashes, flips, strict=True))
    assert [tuple(group) for group in groups(made, most_bits)] == slowly(made, most_bits)


def test_twenty_thousand_clips_take_seconds() -> None:
    """Comparing every pair in Python would take minutes."""
    draw = np.random.default_rng(0).integers(0, 2**64, (20_000, 3), np.uint64).tolist()
    made = {f"{number:05d}": tuple(hashes) for number, hashes in enumerate(draw)}
    made["copy"] = (made["00007"][0] ^ 0b111, *made["00007"][1:])
    assert groups(made, 6) == [["00007", "copy"]]
