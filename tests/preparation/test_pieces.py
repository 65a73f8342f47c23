"""Cuts and lengths make pieces that tell the whole video, each frame the nearest to its moment."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.preparation.pieces import plan


@pytest.mark.parametrize(
    ("frames", "own", "cuts", "fps", "length", "expected"),
    [
        (10, 10, [], 10, 4, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        (10, 10, [0.6], 10, 4, [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]),
        (10, 10, [0.0, 0.6, 0.6, 9.0], 10, 4, [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]),
        (10, 10, [], 5, 3, [[0, 2, 4], [6, 8]]),
        (10, 30, [], 20, 9, [[0, 1, 3, 4, 6, 7, 9]]),
        (1, 1, [], 10, 4, [[0]]),
        (3, 29.97, [], 29.97, 9, [[0, 1, 2]]),
    ],
)
def test_pieces(frames: int, own: float, cuts: list[float], fps: float, length: int, expected: list[list[int]]) -> None:
    pieces = plan(np.arange(frames) / own, cuts, fps, length)
    assert [list(piece.places) for piece in pieces] == expected
    for piece in pieces:
        assert piece.start == pytest.approx(piece.places[0] / own, abs=0.5 / own + 1e-6)
        assert piece.end == pytest.approx(piece.start + len(piece.places) / fps, abs=1e-5)
        assert piece.repeated == 0


def test_an_uneven_rate_repeats_frames_and_says_how_many() -> None:
    times_T = np.array([0.0, 0.1, 0.2, 0.8, 0.9])
    (piece,) = plan(times_T, [], 10, 20)
    assert list(piece.places) == [0, 1, 2, 2, 2, 2, 3, 3, 3, 4]
    assert piece.repeated == 0.5


def test_no_piece_reaches_over_a_cut() -> None:
    cuts = [k * 0.37 for k in range(1, 30)]
    times_T = np.arange(300) / 25
    pieces = plan(times_T, cuts, 8, 5)
    for cut in cuts:
        for piece in pieces:
            moments = times_T[list(piece.places)]
            assert (moments < cut - 1e-3).all() or (moments >= cut - 1e-3).all()
