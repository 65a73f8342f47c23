"""Synthetic videos whose measures are known."""

from __future__ import annotations

import cv2
import numpy as np


def texture(height: int = 72, width: int = 128, *, seed: int = 0, soft: float = 3.0) -> np.ndarray:
    """uint8 [H, W, 3]: a soft random pattern in three colours, whose left edge goes on at the right."""
    rough = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    padded = cv2.GaussianBlur(np.tile(rough, (3, 3, 1)), (0, 0), soft)[height : 2 * height, width : 2 * width]
    return cv2.normalize(padded, np.empty(0), 30, 220, cv2.NORM_MINMAX).astype(np.uint8)


def panning(frames: int = 6, right: float = 1.0, down: float = 0.0, *, seed: int = 0, wide: int = 128) -> np.ndarray:
    """uint8 [T, H, W, 3]: the pattern moves by so many pixels a frame; what leaves comes in again on the other side."""
    picture_HWC = texture(wide * 9 // 16, wide, seed=seed).astype(np.float32)
    height, width = picture_HWC.shape[:2]
    shifts = [np.array([[1, 0, right * t], [0, 1, down * t]], np.float32) for t in range(frames)]
    moved = [cv2.warpAffine(picture_HWC, s, (width, height), borderMode=cv2.BORDER_WRAP) for s in shifts]
    return np.stack(moved).round().clip(0, 255).astype(np.uint8)


def flat(*colours: tuple[int, int, int], size: int = 32) -> np.ndarray:
    """uint8 [T, size, size, 3]: a frame of each colour."""
    return np.stack([np.full((size, size, 3), colour, np.uint8) for colour in colours])
