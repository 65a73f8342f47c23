"""Movement in a video by dense optical flow: how much, which way, and what changes besides."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from svdtrain.preparation.motion import WIDTH, small_grey

BLUR = 2.0
"""Pixels, of WIDTH: noise finer than that is no edge."""


class Flow(NamedTuple):
    """Between neighbouring frames, on grey pictures 256 pixels wide."""

    greys_THW: np.ndarray
    """uint8."""
    forward_THWC: np.ndarray
    """fp32 [T - 1, H, W, 2]: pixels from a frame to the next."""
    backward_THWC: np.ndarray
    """fp32, from the next to the frame."""


def flow_of(frames_THWC: np.ndarray) -> Flow:
    """DIS flow (Kroeger et al. 2016, arXiv 1603.03590) of a uint8 RGB video of at least two frames."""
    greys = [small_grey(frame_HWC) for frame_HWC in frames_THWC]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = list(zip(greys, greys[1:], strict=False))
    forward = [dis.calc(before, after, np.empty(0)) for before, after in pairs]
    backward = [dis.calc(after, before, np.empty(0)) for before, after in pairs]
    return Flow(np.stack(greys), np.stack(forward), np.stack(backward))


def motion(flow: Flow, fps: float) -> float:
    """Mean length, in % of the picture's width per second; each place counts by what there is to follow.

    That is the squared gradient of the blurred grey: the error of a flow goes as its inverse (Simoncelli et al. 1991), and
    over smooth ground noise alone would make a still video move.
    """
    weights_THW = np.stack([_edges(grey_HW) for grey_HW in flow.greys_THW[:-1]])
    lengths_THW = np.linalg.norm(flow.forward_THWC, axis=-1)
    return 100 * float((weights_THW * lengths_THW).sum() / max(weights_THW.sum(), 1e-9)) / WIDTH * fps


def _edges(grey_HW: np.ndarray) -> np.ndarray:
    """Squared gradient."""
    blurred_HW = cv2.GaussianBlur(grey_HW.astype(np.float32), (0, 0), BLUR)
    down_HW, across_HW = np.gradient(blurred_HW)
    return down_HW**2 + across_HW**2


def motion_direction(flow: Flow, other: Flow) -> float | None:
    """Cosine in [-1, 1] between two videos' flow over all pixels and frames; None where one of them does not move."""
    frames = min(len(flow.forward_THWC), len(other.forward_THWC))
    one, two = (each.forward_THWC[:frames].ravel().astype(np.float64) for each in (flow, other))
    norms = np.linalg.norm(one) * np.linalg.norm(two)
    still = 0.01 * one.size**0.5  # a hundredth of a pixel
    if min(np.linalg.norm(one), np.linalg.norm(two)) < still:
        return None
    return float(one @ two / norms)


def flicker(flow: Flow) -> float | None:
    """Mean difference of each frame to the next one moved back along the flow, in % of the range of grey.

    Of pixels that are seen in both: forward and backward flow agree (Sundaram et al. 2010); None where none are.
    """
    differences: list[float] = []
    for before_HW, after_HW, forward_HWC, backward_HWC in zip(
        flow.greys_THW, flow.greys_THW[1:], flow.forward_THWC, flow.backward_THWC, strict=False
    ):
        back_HWC = _moved(backward_HWC, forward_HWC)
        apart_HW = np.square(forward_HWC + back_HWC).sum(-1)
        lengths_HW = np.square(forward_HWC).sum(-1) + np.square(back_HWC).sum(-1)
        seen_HW = (apart_HW < 0.01 * lengths_HW + 0.5) & _inside(forward_HWC)
        if seen_HW.any():
            moved_HW = _moved(after_HW.astype(np.float32), forward_HWC)
            differences.append(float(np.abs(moved_HW - before_HW)[seen_HW].mean()))
    return 100 / 255 * float(np.mean(differences)) if differences else None


def _grid(field_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel comes to lie, x and y."""
    down_HW, across_HW = np.mgrid[: field_HWC.shape[0], : field_HWC.shape[1]].astype(np.float32)
    return across_HW + field_HWC[..., 0], down_HW + field_HWC[..., 1]


def _moved(picture: np.ndarray, field_HWC: np.ndarray) -> np.ndarray:
    """A picture looked up where the flow leads."""
    return cv2.remap(picture, *_grid(field_HWC), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _inside(field_HWC: np.ndarray) -> np.ndarray:
    across_HW, down_HW = _grid(field_HWC)
    height, width = field_HWC.shape[:2]
    return (across_HW >= 0) & (across_HW <= width - 1) & (down_HW >= 0) & (down_HW <= height - 1)


def motion_response(buckets_K: np.ndarray, motions_K: np.ndarray) -> float:
    """How much faster a video gets by 100 motion bucket ids: the slope of the line that fits best, in the unit of motion."""
    return 100 * float(np.polyfit(buckets_K, motions_K, 1)[0])
