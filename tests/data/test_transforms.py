"""Pixels cover the asked size, keep their aspect, and are untouched where nothing needs to change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svdtrain.data.transforms import cover_size, to_pixels


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


def test_identity_is_bit_exact() -> None:
    frames = noise(64, 96)
    expected = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    pixels = to_pixels(frames, 64, 96)
    assert torch.equal(pixels, expected)
    assert pixels.is_contiguous()
    assert torch.equal(to_pixels(frames, 64, 96, flip=True), expected.flip(-1))
    extremes = to_pixels(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, 3), 1, 2)
    assert extremes.unique().tolist() == [-1.0, 1.0]


def test_crop_alone_takes_the_centre() -> None:
    frames = noise(64, 100)
    assert torch.equal(to_pixels(frames, 64, 90), to_pixels(frames[:, :, 5:95], 64, 90))


@pytest.mark.parametrize("size", [(47, 65), (65, 47), (720, 1280), (33, 500), (64, 64), (20, 20)])
@pytest.mark.parametrize("wanted", [(64, 64), (72, 128)])
def test_a_disc_stays_a_disc_in_the_middle(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = np.hypot(rows - (size[0] - 1) / 2, columns - (size[1] - 1) / 2) < min(size) * 0.3
    frames = np.repeat((inside * 255).astype(np.uint8)[None, ..., None], 3, axis=-1)
    pixels = to_pixels(frames, *wanted)
    assert pixels.shape == (1, 3, *wanted)
    assert float(pixels.abs().max()) <= 1
    scale = max(wanted[0] / size[0], wanted[1] / size[1])
    seen = np.hypot(*(np.mgrid[: wanted[0], : wanted[1]] - (np.array(wanted) - 1)[:, None, None] / 2))
    expected = seen < min(size) * 0.3 * scale
    assert ((pixels[0, 0].numpy() > 0) == expected).mean() > 0.97


def test_shrinking_averages_instead_of_picking() -> None:
    assert float(to_pixels(noise(640, 640), 64, 64).std()) < 0.1
    assert float(to_pixels(noise(64, 64), 64, 64).std()) > 0.5


@pytest.mark.parametrize(
    "old", [(47, 65), (65, 47), (720, 1280), (33, 500), (64, 64), (20, 20), (64, 96), (1080, 1920)]
)
@pytest.mark.parametrize("wanted", [(64, 64), (72, 128), (576, 1024), (320, 576)])
def test_a_picture_of_the_covering_size_is_only_cropped(old: tuple[int, int], wanted: tuple[int, int]) -> None:
    height, width = cover_size(*old, *wanted)
    assert (height >= wanted[0], width >= wanted[1]) == (True, True)
    assert (height == wanted[0]) or (width == wanted[1])
    assert abs(height / width - old[0] / old[1]) < 0.02 * old[0] / old[1] + 1 / width
    frames = noise(height, width)[:1]
    top, left = (height - wanted[0]) // 2, (width - wanted[1]) // 2
    crop = torch.from_numpy(frames[:, top : top + wanted[0], left : left + wanted[1]]).permute(0, 3, 1, 2)
    assert torch.equal(to_pixels(frames, *wanted), crop.float() / 127.5 - 1)
