"""Raw pixels become encoded images: the one place where a frame is compressed."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from schemas.source import Array


def encode(frame: Array, images: str, *, subsampling: str = "444") -> bytes:
    """Encode one frame [H, W, C] uint8, C 1 or 3: `png` loses nothing, `jpeg 95` is a tenth of the size.

    `subsampling` is that of a JPEG's colours; more than the frame ever had would only take space.
    """
    form, _, quality = images.partition(" ")
    if form == "jpeg":
        space = "RGB" if frame.shape[-1] == 3 else "GRAY"
        encoded: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=int(quality), colorspace=space, colorsubsampling=subsampling
        )
        return encoded
    out = io.BytesIO()
    Image.fromarray(frame if frame.shape[-1] == 3 else frame[..., 0]).save(out, "PNG", compress_level=1)
    return out.getvalue()
