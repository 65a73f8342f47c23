"""Measures in the space of an image encoder of CLIP's kind."""

from __future__ import annotations

import numpy as np

from svdtrain.evaluation.intervals import resamples

BANDWIDTH, SCALE = 10.0, 1000.0
"""Of CMMD, as published."""
KEPT = 4
"""Frames of a video that count in a distance between sets."""


def normalised(embeddings_TD: np.ndarray) -> np.ndarray:
    """Each of length 1."""
    return embeddings_TD / np.linalg.norm(embeddings_TD, axis=-1, keepdims=True)


def temporal_consistency(embeddings_TD: np.ndarray) -> float | None:
    """Mean cosine of neighbouring frames' embeddings; None of a single frame."""
    unit_TD = normalised(embeddings_TD.astype(np.float64))
    return float((unit_TD[1:] * unit_TD[:-1]).sum(-1).mean()) if len(unit_TD) > 1 else None


def cmmd(videos_NKD: np.ndarray, reference_NKD: np.ndarray) -> tuple[float, np.ndarray]:
    """The distance of N videos (K frames of each) to the reference, and what it is on resamples of both in pairs.

    1000 times the squared maximum mean discrepancy of unit embeddings with a Gaussian kernel of width 10, by its biased
    estimator (Jayasumana et al. 2024, arXiv 2401.09603).
    """
    counts_DN = resamples(len(reference_NKD)) / len(reference_NKD)
    cross_NN = _kernel(videos_NKD, reference_NKD)
    # |mean of videos - mean of reference|^2 is one quadratic form, since both are resampled alike.
    form_NN = SCALE * (_kernel(videos_NKD, videos_NKD) + _kernel(reference_NKD, reference_NKD) - cross_NN - cross_NN.T)
    draws_D = ((counts_DN @ form_NN) * counts_DN).sum(1)
    # Resamples are as much farther apart than the videos as these are than all videos that there might be.
    return float(form_NN.mean()), draws_D - (draws_D.mean() - form_NN.mean())


def _kernel(one_NKD: np.ndarray, other_NKD: np.ndarray) -> np.ndarray:
    """float64 [N, N]: the kernel's mean over the frames of two videos, a row at a time."""
    one, other = normalised(one_NKD.astype(np.float64)), normalised(other_NKD.astype(np.float64))
    flat_MD = other.reshape(-1, other.shape[-1])
    rows: list[np.ndarray] = []
    for video_KD in one:
        squares_KM = np.maximum(2 - 2 * video_KD @ flat_MD.T, 0)
        rows.append(np.exp(-squares_KM / (2 * BANDWIDTH**2)).reshape(len(video_KD), len(other), -1).mean((0, 2)))
    return np.stack(rows)
