"""Compressed chunks: none may inflate to more than it is declared to hold. The HDF5 library itself sets no limit."""

import zlib
from math import prod

import h5py

from pipelines.readers.fields import LIMIT
from schemas.errors import SourceError

GZIP, LZF = 1, 32000  # as HDF5 numbers its filters
RATIOS = {GZIP: 1032, LZF: 88}  # what a byte inflates to at most
PIECE = 1 << 20  # bytes


def check_chunks(path: str, dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose chunks are too large, or inflate to more than they should."""
    if not dataset.chunks:
        return
    room = prod(dataset.chunks) * dataset.dtype.itemsize
    if room > LIMIT:
        raise SourceError(f"{path}: chunks of more than {LIMIT} bytes", reason="too_large")
    creation = dataset.id.get_create_plist()
    packed = [kind for i in range(creation.get_nfilters()) if (kind := creation.get_filter(i)[0]) in RATIOS]
    if len(packed) > 1:
        raise SourceError(f"{path}: chunks that are compressed twice: refused", reason="too_large")
    if not packed or dataset.id.get_storage_size() * RATIOS[packed[0]] <= LIMIT:
        return
    large: list[tuple[int, ...]] = []

    def look(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.size * RATIOS[packed[0]] > LIMIT:
            large.append(chunk.chunk_offset)

    dataset.id.chunk_iter(look)
    for offset in large:
        if packed[0] == LZF or _inflates(dataset.id.read_direct_chunk(offset)[1], room):
            raise SourceError(f"{path}: a chunk may inflate to more than it should have", reason="too_large")


def _inflates(data: bytes, room: int) -> bool:
    """Say whether a deflated chunk has more than `room` bytes; one that is damaged has not."""
    stream, size = zlib.decompressobj(), 0
    try:
        while data and not stream.eof and size <= room:
            size += len(stream.decompress(data, PIECE))
            data = stream.unconsumed_tail
    except zlib.error:
        return False
    return size > room
