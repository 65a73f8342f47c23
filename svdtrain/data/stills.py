"""Pictures as clips of one frame."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from svdtrain.data.decoding import LARGEST_PICTURE
from svdtrain.foundation.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
HINT = "take it out of the data, or save it again as PNG or JPEG"


def decode_still(data: bytes, name: str) -> np.ndarray:
    """uint8 RGB [1, H, W, 3], upright; of an animation the first picture. DataError when it is damaged or absurdly large."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            width, height = file.size
            if width * height > LARGEST_PICTURE:
                hint = f"at most {LARGEST_PICTURE:,} pixels are read"
                raise DataError(f"{name} has {width}x{height} pixels", hint, "too_large")
            return np.array(upright(file).convert("RGB"))[None]
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is no picture: it starts with {data[:16]!r}", HINT, "no_media") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is damaged: {' '.join(str(error).split())}", HINT, "damaged") from error


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says; 16-bit grey scaled to 8 bits (Pillow alone would clip it to white)."""
    turned = ImageOps.exif_transpose(picture)
    if turned.mode.startswith("I"):
        return Image.fromarray((np.asarray(turned).clip(0, 65535) // 257).astype(np.uint8))
    return turned
