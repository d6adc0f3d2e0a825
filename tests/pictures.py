"""Every kind of JPEG and PNG, written without our code."""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from schemas.source import Array

HEIGHT, WIDTH = 64, 80
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of PNG
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7


def png(
    pixels: Array, colour: int, bits: int, *, interlaced: bool = False, chunks: Mapping[bytes, bytes] = {}
) -> bytes:
    """Write a PNG without filters; `pixels` are [H, W, C] or [H, W] in the range of `bits`."""
    passes = [pixels[y::down, x::across] for y, x, down, across in PASSES] if interlaced else [pixels]
    rows = [b"\0" + _packed(row, bits) for part in passes for row in part]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, interlaced)
    parts = {b"IHDR": header, **chunks, b"IDAT": zlib.compress(b"".join(rows)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts.items())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _packed(row: Array, bits: int) -> bytes:
    if bits >= 8:
        return row.astype(">u2" if bits == 16 else np.uint8).tobytes()
    single = (row.reshape(-1, 1) >> np.arange(bits)[::-1]) & 1
    return np.packbits(single.astype(np.uint8)).tobytes()


def _jpeg(mode: str, colours: Array, **how: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(colours).convert(mode).save(out, "JPEG", quality=95, **how)
    return out.getvalue()


def pictures(seed: int = 0) -> dict[str, bytes]:
    """Return one picture of each kind, by name; they differ for each seed."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([x * 3, y * 3, 255 - x - y], -1).astype(np.uint8) ^ np.uint8(seed)
    grey, inks = rgb[..., 0], np.concatenate([255 - rgb, np.full((HEIGHT, WIDTH, 1), 30, np.uint8)], -1)
    deep, alpha = rgb.astype(np.uint16) * 257, np.full((HEIGHT, WIDTH, 1), 200, np.uint8)
    colours = {b"PLTE": (np.arange(768) % 256).astype(np.uint8).tobytes()}
    clear = {**colours, b"tRNS": bytes(range(256))}
    return {
        "jpeg_rgb": _jpeg("RGB", rgb),
        "jpeg_grey": _jpeg("L", rgb),
        "jpeg_progressive": _jpeg("RGB", rgb, progressive=True),
        "jpeg_cmyk": _jpeg("CMYK", rgb),
        "jpeg_ycck": bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(inks), colorspace="CMYK")),
        "png_grey": png(grey, GREY, 8),
        "png_grey_1": png(grey >> 7, GREY, 1),
        "png_grey_2": png(grey >> 6, GREY, 2),
        "png_grey_4": png(grey >> 4, GREY, 4),
        "png_grey_interlaced": png(grey, GREY, 8, interlaced=True),
        "png_grey_16": png(deep[..., 0], GREY, 16),
        "png_grey_alpha": png(np.concatenate([grey[..., None], alpha], -1), GREY_ALPHA, 8),
        "png_grey_alpha_16": png(np.concatenate([deep[..., :1], alpha * np.uint16(257)], -1), GREY_ALPHA, 16),
        "png_rgb": png(rgb, RGB, 8),
        "png_rgb_interlaced": png(rgb, RGB, 8, interlaced=True),
        "png_rgb_transparent": png(rgb, RGB, 8, chunks={b"tRNS": b"\0\1\0\1\0\1"}),
        "png_rgb_16": png(deep, RGB, 16),
        "png_rgba": png(np.concatenate([rgb, alpha], -1), RGBA, 8),
        "png_rgba_16": png(np.concatenate([deep, alpha * np.uint16(257)], -1), RGBA, 16),
        "png_palette": png(grey, PALETTE, 8, chunks=colours),
        "png_palette_4": png(grey >> 4, PALETTE, 4, chunks={b"PLTE": colours[b"PLTE"][:48]}),
        "png_palette_transparent": png(grey, PALETTE, 8, chunks=clear),
    }
