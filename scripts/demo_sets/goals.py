"""How far a generated clip is from what a demo set teaches: texture, survival of the character, optical flow, path."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from world import SIZE, Scene

_ZOOM = 4


def flow(frames_THWC: np.ndarray) -> np.ndarray:
    """Dense optical flow [T - 1, H, W, 2] in pixels a frame (DIS, on frames enlarged four times)."""
    estimator: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC]
    big = [cv2.resize(g, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_CUBIC) for g in grey]
    fields = [estimator.calc(a, b, None) for a, b in zip(big, big[1:], strict=False)]
    return np.stack([cv2.resize(f, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / _ZOOM for f in fields])


def flow_agreement(frames_THWC: np.ndarray, truth_THWC: np.ndarray) -> float:
    """Cosine between two clips' flow fields over all pixels and frames: 1 the same movement, 0 unrelated."""
    one, other = flow(frames_THWC).ravel(), flow(truth_THWC).ravel()
    return float(one @ other / max(1e-9, np.linalg.norm(one) * np.linalg.norm(other)))


def mean_speed(frames_THWC: np.ndarray) -> float:
    """Mean length of the flow, pixels a frame."""
    return float(np.linalg.norm(flow(frames_THWC), axis=-1).mean())


def growth(frames_THWC: np.ndarray, scene: Scene) -> tuple[float, float]:
    """How much larger the picture and its shape become, % a frame: the flow's outward part, fitted over all pixels and
    frames; for the shape over those within its first outline, from its own centre, beside the flow that moves it whole.
    """
    field = flow(frames_THWC)
    y, x = np.mgrid[:SIZE, :SIZE]
    outward = np.stack([x, y], axis=-1) - (SIZE - 1) / 2
    picture = (field * outward).sum() / ((outward**2).sum() * len(field))
    inside = np.hypot(x - scene.centre[0], y - scene.centre[1]) <= scene.radius
    spread = outward[inside] - outward[inside].mean(0)
    shape = (field[:, inside] * spread).sum() / ((spread**2).sum() * len(field))
    return float(100 * picture), float(100 * shape)


def tracked(frames_THWC: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Centres [T, 2] of the first frame's shape in every frame, and how like itself it still is [T] (correlation)."""
    half = int(round(scene.radius)) + 1
    x, y = (int(round(v)) for v in scene.centre)
    padded = np.stack([np.pad(f, ((half, half), (half, half), (0, 0)), mode="edge") for f in frames_THWC])
    template = padded[0, y : y + 2 * half, x : x + 2 * half]
    inside = np.hypot(*np.mgrid[-half:half, -half:half]) <= scene.radius
    mask = np.repeat(inside[..., None], 3, axis=2).astype(np.float32)
    centres, likeness = [], []
    for frame in padded:
        scores = cv2.matchTemplate(
            frame.astype(np.float32), template.astype(np.float32), cv2.TM_CCOEFF_NORMED, mask=mask
        )
        scores = np.nan_to_num(scores, nan=-1.0, posinf=-1.0, neginf=-1.0)
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        centres.append((float(column), float(row)))
        likeness.append(float(scores[row, column]))
    return np.asarray(centres), np.asarray(likeness)


def ahead(frames_THWC: np.ndarray, scene: Scene) -> np.ndarray:
    """How far [T] the tracked shape is ahead of its start, along its heading, in pixels."""
    centres, _ = tracked(frames_THWC, scene)
    return (centres - centres[0]) @ np.array([np.cos(scene.heading), np.sin(scene.heading)])


def lost_likeness(frames_THWC: np.ndarray, scene: Scene) -> float:
    """1 - correlation of the shape with its first frame, mean over the frames after it: 0 it survives untouched."""
    return float(1.0 - tracked(frames_THWC, scene)[1][1:].mean())


def texture(frames_THWC: np.ndarray) -> np.ndarray:
    """What a look is made of: energies of Gabor filters (6 orientations x 3 wavelengths), colour means and covariance."""
    frames = frames_THWC.astype(np.float32) / 255.0
    features = []
    for frame in frames:
        grey = frame.mean(-1)
        energies = [
            float(np.abs(cv2.filter2D(grey, cv2.CV_32F, _gabor(angle, wavelength))).mean())
            for angle in np.arange(6) * np.pi / 6
            for wavelength in (4.0, 7.5, 14.0)
        ]
        pixels = frame.reshape(-1, 3)
        features.append([*energies, *(pixels.mean(0)), *np.cov(pixels.T)[np.triu_indices(3)]])
    return np.asarray(features)


def style_distance(frames_THWC: np.ndarray, target_features: np.ndarray) -> float:
    """Distance of a clip's later frames to the look of target frames, in the target's own standard deviations."""
    mean, spread = target_features.mean(0), target_features.std(0) + 5e-3
    return float(np.abs((texture(frames_THWC[2:]) - mean) / spread).mean())


def _gabor(angle: float, wavelength: float) -> np.ndarray:
    kernel = cv2.getGaborKernel((15, 15), 0.45 * wavelength, angle, wavelength, 1.0, 0.0, cv2.CV_32F)
    return (kernel - kernel.mean()) / np.abs(kernel).sum()
