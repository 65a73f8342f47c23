"""Near duplicates: clips whose first, middle and last frames look the same, by difference hashes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 8
BITS = SIDE * SIDE
MOST_PAIRS = 1 << 18
"""Compared at once."""


def signature(frames_THWC: np.ndarray) -> tuple[int, ...]:
    """64-bit difference hashes of the first, middle and last frame of a uint8 RGB clip [T, H, W, 3].

    Each bit says whether a cell of an 8 x 8 grid is darker than its right neighbour: size, codec, brightness and
    contrast hardly matter.
    """
    last = len(frames_THWC) - 1
    return tuple(_difference_hash(frames_THWC[place]) for place in (0, last // 2, last))


def groups(signatures: dict[str, tuple[int, ...]], most_bits: int) -> list[list[str]]:
    """Groups of two keys or more, linked by pairs of which each of the three hashes differs by at most `most_bits`.

    Plain pictures, in which few bits say anything, may differ by less in proportion: a small thing at another place is
    another clip. Keys sorted inside a group, groups by their first key. Only clips that share one of `most_bits` + 1
    bands of the first hash are compared: no pair is missed, since that many differing bits cannot touch every band.
    """
    assert 0 <= most_bits < BITS
    if not signatures:
        return []
    alike: dict[tuple[int, ...], list[str]] = {}
    for key, hashes in sorted(signatures.items()):
        alike.setdefault(hashes, []).append(key)
    keys = list(alike.values())
    hashes_NK = np.array(list(alike), np.uint64)
    linked: dict[int, list[str]] = {}
    for place, root in enumerate(_components(hashes_NK, most_bits).tolist()):
        linked.setdefault(root, []).extend(keys[place])
    return sorted(sorted(group) for group in linked.values() if len(group) > 1)


def _difference_hash(frame_HWC: np.ndarray) -> int:
    grey_HW = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey_HW, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def _components(hashes_NK: np.ndarray, most_bits: int) -> np.ndarray:
    """int64 [N]: for each row, the least row that it is linked with."""
    roots_N = np.arange(len(hashes_NK))
    edges = np.linspace(0, BITS, most_bits + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        bands_N = hashes_NK[:, 0] << np.uint64(BITS - high) >> np.uint64(BITS - high + low)
        order_N = np.argsort(bands_N, kind="stable")
        pending, count = [], 0
        for rows in np.split(order_N, np.flatnonzero(np.diff(bands_N[order_N])) + 1):
            for pairs_2P in _close_pairs(hashes_NK, rows, most_bits):
                fresh_2P = pairs_2P[:, roots_N[pairs_2P[0]] != roots_N[pairs_2P[1]]]
                pending.append(fresh_2P)
                count += fresh_2P.shape[1]
                if count > MOST_PAIRS:
                    roots_N, pending, count = _joined(roots_N, pending), [], 0
        roots_N = _joined(roots_N, pending)
    return roots_N


def _close_pairs(hashes_NK: np.ndarray, rows: np.ndarray, most_bits: int) -> Iterator[np.ndarray]:
    """int64 [2, pairs]: those among `rows` of which every hash is close."""
    step = max(1, MOST_PAIRS // len(rows))
    for start in range(0, len(rows) - 1, step):
        some, others = rows[start : start + step], rows[start + 1 :]
        near = np.bitwise_count(hashes_NK[some, 0][:, None] ^ hashes_NK[others, 0]) <= most_bits
        first, second = np.nonzero(near)
        left, right = some[first], others[second]
        close = _close(hashes_NK[left], hashes_NK[right], most_bits).all(axis=1)
        yield np.stack([left[close], right[close]])


def _close(one: np.ndarray, other: np.ndarray, most_bits: int) -> np.ndarray:
    """Whether hashes differ by at most `most_bits`, in proportion where fewer than half of the bits stand out in either."""
    differing = np.bitwise_count(one ^ other).astype(np.int64)
    telling = np.minimum(np.bitwise_count(one | other), np.bitwise_count(~(one & other))).astype(np.int64)
    return differing * (BITS // 2) <= most_bits * np.minimum(telling, BITS // 2)


def _joined(roots_N: np.ndarray, pairs: list[np.ndarray]) -> np.ndarray:
    """Flat roots after the two of every pair are linked."""
    parents: list[int] = roots_N.tolist()

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return place

    for left, right in np.concatenate(pairs, axis=1).T.tolist() if pairs else ():
        low, high = sorted((root(left), root(right)))
        parents[high] = low
    return np.array([root(place) for place in range(len(parents))])
