"""Pictures: read as they are meant."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from svdtrain.data.stills import decode_still


def test_a_grey_picture_of_16_bits_is_scaled_not_clipped() -> None:
    ramp_HW = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    buffer = io.BytesIO()
    Image.fromarray(ramp_HW).save(buffer, "PNG")
    picture_HWC = decode_still(buffer.getvalue(), "ramp")[0]
    assert np.array_equal(picture_HWC[..., 0], ramp_HW // 257)
