"""Decode stored images to pixels."""

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from schemas.errors import SourceError
from schemas.images import JPEG, check_pixels
from schemas.source import Array, Bytes

DAMAGED = "premature end of data segment"  # libjpeg's message for image data that is cut off
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # Pillow's modes


def decode(data: Bytes, *, like_tensorflow: bool = False, out: Array | None = None) -> Array:
    """Decode a JPEG or PNG to [H, W, 3] uint8 RGB; grayscale is converted to RGB, and transparency is dropped.

    `out` is a buffer of at least H * W * 3 bytes that may be used for the result. With `like_tensorflow`, JPEGs are
    decoded with the fast integer DCT, the default of `tf.io.decode_jpeg`. The pixels then equal TensorFlow's bit for
    bit; they differ from exactly decoded pixels by a few levels out of 255.
    Raises SourceError if the image is broken or has more than 8 bits per channel.
    """
    check_pixels(data)
    if data[:2] == JPEG:
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, fastdct=like_tensorflow, fastupsample=False, buffer=out))
        except ValueError as error:
            if DAMAGED in str(error):  # Pillow would fill in the missing pixels
                raise SourceError(f"the image cannot be decoded ({error})", reason="bad_image") from error
            # Otherwise the end marker or some pixels are missing. Pillow refuses the image only if pixels are missing.
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in EIGHT_BITS:
                raise SourceError(f"the image has mode {image.mode}: expected 8 bits per channel", reason="bad_image")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:  # its message contains a memory address
        raise SourceError("the image is neither a JPEG nor a PNG", reason="bad_image") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"the image cannot be decoded ({error})", reason="bad_image") from error
