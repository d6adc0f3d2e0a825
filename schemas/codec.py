"""Encoded images become pixels: the one place where a stored frame is decoded."""

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from schemas.errors import SourceError
from schemas.images import JPEG
from schemas.source import Array, Bytes

DAMAGED = "premature end of data segment"  # as libjpeg says that bits do not add up to the pixels there should be
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # Pillow's modes


def decode(data: Bytes, *, like_tensorflow: bool = False, out: Array | None = None) -> Array:
    """Decode a JPEG or PNG to [H, W, 3] uint8 RGB; what is broken, or has more than 8 bits, is a SourceError.

    `out` is memory of that size, or larger, that may be used for the result.

    Gray becomes RGB, transparency is left out. `like_tensorflow` takes the fast integer DCT for JPEG, as
    `tf.io.decode_jpeg` does by default: its pixels bit for bit, up to a few levels beside the exact ones.
    """
    if data[:2] == JPEG:
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, fastdct=like_tensorflow, fastupsample=False, buffer=out))
        except ValueError as error:
            if DAMAGED in str(error):  # Pillow would make up what is not there
                raise SourceError(f"an image that cannot be decoded ({error})", reason="bad_image") from error
            # else its end marker is missing, or its pixels: Pillow tells these apart
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in EIGHT_BITS:
                raise SourceError(f"an image of mode {image.mode}: not 8 bits a channel", reason="bad_image")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise SourceError("an image that is neither JPEG nor PNG", reason="bad_image") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"an image that cannot be decoded ({error})", reason="bad_image") from error
