"""Restrict the codecs of Zarr versions 2 and 3: only known ones are used, and none may inflate beyond its chunk."""

import bz2
import lzma
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import pyarrow as pa
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES

BLOCK = 1 << 20  # bytes
SLACK = 1 << 16  # extra bytes that an inflated chunk may have, for checksums and padding
DECOMPRESSORS: dict[str, Any] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(memlimit=1 << 28),
}
SIZE_OFFSETS = {"blosc": 4, "lz4": 0}  # offset of the inflated size in the header
COMPRESSING = {*DECOMPRESSORS, *SIZE_OFFSETS, "zstd"}
NOT_COMPRESSING = {
    *("bytes", "transpose", "vlen-utf8", "delta", "fixedscaleoffset", "quantize", "astype", "packbits", "shuffle"),
    *("bitround", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
}
IMAGE_CODECS = {
    f"imagecodecs_{form}" for form in ("jpegxl", "jpeg2k", "jpeg", "jpegls", "jpegxr", "png", "webp", "qoi")
}


@lru_cache(maxsize=1)
def register_image_codecs() -> None:
    """Register the image codecs of UMI recordings with Zarr, if the package imagecodecs is installed."""
    try:
        from imagecodecs.numcodecs import register_codecs  # noqa: PLC0415 - only such recordings need it
    except ImportError:
        return
    register_codecs(verbose=False)


def with_bounded_codecs(metadata: Any, path: str) -> Any:
    """Return an array's metadata with its codecs wrapped, so that they limit the inflated size.

    Raises SourceError for an unknown codec.
    """
    if metadata.zarr_format == 3:
        return replace(metadata, codecs=tuple(_bounded_v3(codec, path) for codec in metadata.codecs))
    limit = _chunk_size(metadata.dtype, metadata.chunks)
    filters = tuple(BoundedCodecV2(codec, _supported(codec.codec_id, path), limit) for codec in metadata.filters or ())
    stored = metadata.compressor
    compressor = stored and BoundedCodecV2(stored, _supported(stored.codec_id, path), limit)
    return replace(metadata, filters=filters or None, compressor=compressor)


def _chunk_size(kind: Any, shape: tuple[int, ...]) -> int:
    """Return the size of a chunk in bytes; for texts, which have no fixed size, return the limit of all chunks."""
    native = kind.to_native_dtype()
    return COLUMN_BYTES if native.kind in "OT" else prod(shape) * int(native.itemsize)


def _bounded_v3(codec: Any, path: str) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_bounded_v3(inner, path) for inner in codec.codecs))
    name = _supported(codec.to_dict()["name"].removeprefix("numcodecs."), path)
    return BoundedCodecV3(codec, name) if isinstance(codec, BytesBytesCodec) and name in COMPRESSING else codec


def _supported(name: str, path: str) -> str:
    if name not in COMPRESSING | NOT_COMPRESSING | IMAGE_CODECS:
        message = f"{path}: the codec '{name}' is not supported; leave the array out with source.ignore"
        raise SourceError(message, reason="unsupported_field")
    return name


class BoundedCodecV2(Codec):  # type: ignore[misc]  # numcodecs has no types
    """A codec of Zarr version 2 that raises SourceError if data would inflate beyond a limit."""

    codec_id = "bounded"

    def __init__(self, codec: Any, name: str, limit: int) -> None:
        """Wrap a codec; `limit` is in bytes."""
        self.codec, self.name, self.limit = codec, name, limit

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode one chunk."""
        if self.name in COMPRESSING:
            check_inflated(self.name, memoryview(buf).cast("B"), self.limit)
        return self.codec.decode(buf, out)

    def encode(self, buf: Any) -> Any:
        """Encode one chunk; not used, but Zarr requires this method of every codec."""
        return self.codec.encode(buf)


@dataclass(frozen=True)
class BoundedCodecV3(BytesBytesCodec):
    """A codec of Zarr version 3 that raises SourceError if data would inflate beyond its chunk."""

    codec: Any
    name: str
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        """Return the description of the codec."""
        described: dict[str, Any] = self.codec.to_dict()
        return described

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> "BoundedCodecV3":
        """Return this codec, adapted to an array."""
        return replace(self, codec=self.codec.evolve_from_array_spec(array_spec))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = _chunk_size(chunk_spec.dtype, chunk_spec.shape)
        check_inflated(self.name, memoryview(chunk_data.to_bytes()), limit)
        decoded: Buffer = await self.codec._decode_single(chunk_data, chunk_spec)  # noqa: SLF001 - as Zarr calls it
        return decoded

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError, as the wrapped codecs do."""
        raise NotImplementedError


def check_inflated(name: str, data: memoryview, limit: int) -> None:
    """Raise SourceError if compressed data inflates to more than `limit` bytes.

    The inflated size is read from the header of the data for blosc and lz4. For other codecs, the data is inflated and
    its bytes are counted.
    """
    allowed = limit + SLACK
    if name == "blosc" and int.from_bytes(data[12:16], "little") != len(data):  # blosc would read past the end
        raise SourceError(f"a chunk of {len(data)} bytes, whose header declares another length", reason="truncated")
    if name in SIZE_OFFSETS:
        start = SIZE_OFFSETS[name]
        size = int.from_bytes(data[start : start + 4], "little")
    elif name == "zstd":
        size = _inflated_size_zstd(data, allowed)
    else:
        size = _inflated_size(name, data, allowed)
    if size > allowed:
        raise SourceError(f"a chunk would inflate beyond its {limit} bytes", reason="too_large")


def _inflated_size(name: str, data: memoryview, allowed: int) -> int:
    """Return the inflated size of all members of the data, or, if it exceeds `allowed`, a size that exceeds it too.

    The data is inflated block by block, and no block is kept.
    """
    size, rest, stream = 0, bytes(data), DECOMPRESSORS[name]()
    while size <= allowed:
        inflated = stream.decompress(rest, BLOCK)
        size += len(inflated)
        rest = getattr(stream, "unconsumed_tail", b"")
        if stream.eof:
            rest, stream = stream.unused_data, DECOMPRESSORS[name]()
        if not (inflated or rest):
            break
    return size


def _inflated_size_zstd(data: memoryview, allowed: int) -> int:
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            while size <= allowed and (block := stream.read(BLOCK)):
                size += len(block)
    except OSError as error:
        raise SourceError(f"a chunk cannot be inflated ({error})") from error
    return size
