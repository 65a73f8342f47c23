"""One picture to a one-frame sample: upright, RGB, shrunk, a PNG."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from svdtrain.data.decoding import LARGEST_PICTURE
from svdtrain.data.stills import upright
from svdtrain.preparation.duplicates import signature
from svdtrain.preparation.journal import write_whole
from svdtrain.preparation.quality import measure
from svdtrain.preparation.records import FinishedClip, Outcome, Rejection, Source, UnusableSource
from svdtrain.preparation.sizes import choose_bucket, resized, stored_size

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.config.preparation import PrepareConfig

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SMALLEST = 16


def still_clip(source: Source, config: PrepareConfig, folder: Path) -> Outcome:
    """Write a picture's sample to `folder`. UnusableSource when it is damaged, huge or tiny; SystemFault as video_clips."""
    picture_HWC = _decoded(source.read())
    height, width = picture_HWC.shape[:2]
    buckets = sorted({(rows, columns, 1) for rows, columns, _ in config.buckets})
    fit = choose_bucket(height, width, 1, buckets, most_upscale=config.most_upscale, most_crop=config.most_crop)
    if config.buckets and fit is None:
        return [], [Rejection("no_bucket", numbers={"height": height, "width": width})]
    size = stored_size(height, width, fit.bucket if fit else None, config.short_side)
    stored_HWC = np.ascontiguousarray(resized(picture_HWC, *size))
    quality = measure(stored_HWC[None])
    scores = {"blur": quality.blur, "exposure_clipped": quality.exposure_clipped, "black": quality.black}
    bounds = {
        "black": quality.black > config.most_black,
        "clipped": quality.exposure_clipped > config.most_clipped,
        "blurred": quality.blur < config.least_sharpness,
    }
    if reason := next((reason for reason, broken in bounds.items() if broken), None):
        return [], [Rejection(reason, numbers=scores)]
    buffer = io.BytesIO()
    Image.fromarray(stored_HWC).save(buffer, "PNG")
    write_whole(folder / "00000.png", buffer.getvalue())
    clip = FinishedClip(
        file="00000.png",
        bytes=len(buffer.getvalue()),
        sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        height=size[0],
        width=size[1],
        frames=1,
        fps=None,
        start=0.0,
        verified=True,
        motion=None,
        signature=signature(stored_HWC[None]),
        bucket=fit.bucket if fit else None,
        scores=scores | {"crop_loss": fit.crop_loss if fit else None},
    )
    return [clip], []


def _decoded(data: bytes) -> np.ndarray:
    """uint8 RGB [H, W, 3]; what shows through stands on black."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            width, height = file.size
            if width * height > LARGEST_PICTURE or min(width, height) < SMALLEST:
                raise UnusableSource("damaged", f"it has {width}x{height} pixels", height=height, width=width)
            if getattr(file, "n_frames", 1) > 1:
                raise UnusableSource("no_media", "it is an animation; make a video of it")
            turned = upright(file).convert("RGBA")
    except UnidentifiedImageError as error:
        raise UnusableSource("damaged", "it is no picture") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableSource("damaged", f"it is damaged: {' '.join(str(error).split())}") from error
    ground = Image.new("RGBA", turned.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(ground, turned).convert("RGB"))
