"""Pictures that people look at: labelled contact sheets, and videos side by side."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_GAP = 3
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], *, frame_height: int = 96) -> np.ndarray:
    """One uint8 picture [H, W, 3]: a row per (label, frames [T, H, W, 3]), its frames from left to right."""
    font = ImageFont.load_default(14)
    gutter = 12 + max(int(font.getlength(label)) for label, _ in rows)
    strips = [_strip(frames_THWC, frame_height) for _, frames_THWC in rows]
    width = gutter + max(strip.shape[1] for strip in strips)
    sheet = Image.new("RGB", (width, _GAP + sum(strip.shape[0] + _GAP for strip in strips)), _PAPER)
    pen, top = ImageDraw.Draw(sheet), _GAP
    for (label, _), strip in zip(rows, strips, strict=True):
        pen.text((6, top + strip.shape[0] // 2 - 8), label, _INK, font)
        sheet.paste(Image.fromarray(strip), (gutter, top))
        top += strip.shape[0] + _GAP
    return np.asarray(sheet)


def side_by_side(columns: Sequence[tuple[str, np.ndarray]], *, frame_height: int = 256) -> np.ndarray:
    """One video [T, H, W, 3] with a labelled column per (label, frames); a picture [H, W, 3] stands still."""
    frames = max(len(video) for _, video in columns if video.ndim == 4)
    font = ImageFont.load_default(16)
    videos = []
    for label, video_THWC in columns:
        video = np.broadcast_to(video_THWC, (frames, *video_THWC.shape)) if video_THWC.ndim == 3 else video_THWC
        big = np.stack([_resized(frame, frame_height) for frame in video])
        header = Image.new("RGB", (big.shape[2], 26), _PAPER)
        ImageDraw.Draw(header).text((4, 4), label, _INK, font)
        column = np.concatenate([np.broadcast_to(np.asarray(header), (frames, 26, big.shape[2], 3)), big], axis=1)
        videos.append(np.pad(column, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255))
    return np.concatenate(videos, axis=2)


def stacked(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Videos of one width, one above the other."""
    return np.concatenate(videos, axis=1)


def write_png(path: Path, picture_HWC: np.ndarray) -> None:
    """Write a uint8 RGB picture; the file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, "png")
    write_atomic(path, buffer.getvalue())


def _strip(frames_THWC: np.ndarray, height: int) -> np.ndarray:
    frames = [np.pad(_resized(f, height), ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for f in frames_THWC]
    return np.concatenate(frames, axis=1)


def _resized(frame_HWC: np.ndarray, height: int) -> np.ndarray:
    """Small pictures are enlarged by whole pixels, large ones are reduced smoothly."""
    if frame_HWC.shape[0] <= height:
        zoom = height // frame_HWC.shape[0]
        return frame_HWC.repeat(zoom, axis=0).repeat(zoom, axis=1)
    width = round(frame_HWC.shape[1] * height / frame_HWC.shape[0])
    return np.asarray(Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.LANCZOS))
