"""Codecs of Zarr, versions 2 and 3: known ones alone, and none may inflate to more than its chunk has."""

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

from pipelines.readers.fields import LIMIT
from schemas.errors import SourceError

PIECE = 1 << 20  # bytes
SLACK = 1 << 16  # bytes beyond a chunk's own: checksums, and padding
STREAMS: dict[str, Any] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(memlimit=1 << 28),
}
HEADED = {"blosc": 4, "lz4": 0}  # where their headers have the inflated size
INFLATING = {*STREAMS, *HEADED, "zstd"}
KEEPING = {
    *("bytes", "transpose", "vlen-utf8", "delta", "fixedscaleoffset", "quantize", "astype", "packbits", "shuffle"),
    *("bitround", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
}
IMAGES = {f"imagecodecs_{form}" for form in ("jpegxl", "jpeg2k", "jpeg", "jpegls", "jpegxr", "png", "webp", "qoi")}


@lru_cache(maxsize=1)
def register_image_codecs() -> None:
    """Let Zarr find the image codecs that UMI's recordings use, where the package that has them is installed."""
    try:
        from imagecodecs.numcodecs import register_codecs  # noqa: PLC0415 - nobody needs it who has no such recordings
    except ImportError:
        return
    register_codecs(verbose=False)


def bounded(metadata: Any, path: str) -> Any:
    """Give an array's metadata with codecs that check what they would inflate to; an unknown one is a SourceError."""
    if metadata.zarr_format == 3:
        return replace(metadata, codecs=tuple(_bounded3(codec, path) for codec in metadata.codecs))
    limit = _size(metadata.dtype, metadata.chunks)
    filters = tuple(Bounded2(codec, _known(codec.codec_id, path), limit) for codec in metadata.filters or ())
    packed = metadata.compressor
    compressor = packed and Bounded2(packed, _known(packed.codec_id, path), limit)
    return replace(metadata, filters=filters or None, compressor=compressor)


def _size(kind: Any, shape: tuple[int, ...]) -> int:
    """Count the bytes of a chunk; of texts, which have no fixed length, what a chunk may have at most."""
    native = kind.to_native_dtype()
    return LIMIT if native.kind in "OT" else prod(shape) * int(native.itemsize)


def _bounded3(codec: Any, path: str) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_bounded3(inner, path) for inner in codec.codecs))
    name = _known(codec.to_dict()["name"].removeprefix("numcodecs."), path)
    return Bounded3(codec, name) if isinstance(codec, BytesBytesCodec) and name in INFLATING else codec


def _known(name: str, path: str) -> str:
    if name not in INFLATING | KEEPING | IMAGES:
        message = f"{path}: the codec '{name}' is not one that is read here; leave it out with source.ignore"
        raise SourceError(message, reason="unsupported_field")
    return name


class Bounded2(Codec):  # type: ignore[misc]  # numcodecs has no types
    """A codec of version 2 that refuses to inflate beyond a limit."""

    codec_id = "bounded"

    def __init__(self, codec: Any, name: str, limit: int) -> None:
        """Keep the codec; `limit` is in bytes."""
        self.codec, self.name, self.limit = codec, name, limit

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode one chunk."""
        if self.name in INFLATING:
            check_inflated(self.name, memoryview(buf).cast("B"), self.limit)
        return self.codec.decode(buf, out)

    def encode(self, buf: Any) -> Any:
        """Encode, as Zarr asks of every codec."""
        return self.codec.encode(buf)


@dataclass(frozen=True)
class Bounded3(BytesBytesCodec):
    """A codec of version 3 that refuses to inflate beyond the chunk at hand, which may lie in a shard."""

    codec: Any
    name: str
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        """Describe the codec."""
        described: dict[str, Any] = self.codec.to_dict()
        return described

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> "Bounded3":
        """Fit the codec to its array."""
        return replace(self, codec=self.codec.evolve_from_array_spec(array_spec))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = _size(chunk_spec.dtype, chunk_spec.shape)
        check_inflated(self.name, memoryview(chunk_data.to_bytes()), limit)
        decoded: Buffer = await self.codec._decode_single(chunk_data, chunk_spec)  # noqa: SLF001 - as Zarr calls it
        return decoded

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Tell nothing, as the codecs that it holds."""
        raise NotImplementedError


def check_inflated(name: str, data: memoryview, limit: int) -> None:
    """Refuse data that would inflate to more than `limit` bytes and some slack: by their header, or by counting."""
    allowed = limit + SLACK
    if name == "blosc" and int.from_bytes(data[12:16], "little") != len(data):  # its library would read on behind them
        raise SourceError(f"a chunk of {len(data)} bytes that should be longer or shorter", reason="truncated")
    if name in HEADED:
        start = HEADED[name]
        size = int.from_bytes(data[start : start + 4], "little")
    elif name == "zstd":
        size = _count_zstd(data, allowed)
    else:
        size = _count(name, data, allowed)
    if size > allowed:
        raise SourceError(f"a chunk that would inflate beyond its {limit} bytes", reason="too_large")


def _count(name: str, data: memoryview, allowed: int) -> int:
    """Inflate piece by piece, member after member, and keep nothing."""
    size, rest, stream = 0, bytes(data), STREAMS[name]()
    while size <= allowed:
        inflated = stream.decompress(rest, PIECE)
        size += len(inflated)
        rest = getattr(stream, "unconsumed_tail", b"")
        if stream.eof:
            rest, stream = stream.unused_data, STREAMS[name]()
        if not (inflated or rest):
            break
    return size


def _count_zstd(data: memoryview, allowed: int) -> int:
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            while size <= allowed and (block := stream.read(PIECE)):
                size += len(block)
    except OSError as error:
        raise SourceError(f"a chunk that cannot be inflated ({error})") from error
    return size
