"""Check that no compressed chunk inflates beyond its declared size, because the HDF5 library does not."""

import zlib
from math import prod

import h5py

from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, check_limit

GZIP, LZF = 1, 32000  # HDF5's filter numbers
RATIOS = {GZIP: 1032, LZF: 88}  # the most bytes that one compressed byte can inflate to
PIECE = 1 << 20  # bytes


def check_chunks(path: str, dataset: h5py.Dataset) -> None:
    """Raise SourceError if a dataset's chunks are too large, or if one may inflate beyond its declared size."""
    if not dataset.chunks:
        return
    declared = prod(dataset.chunks) * dataset.dtype.itemsize
    check_limit(declared, COLUMN_BYTES, "bytes in a chunk", what=path)
    creation = dataset.id.get_create_plist()
    compressors = [kind for i in range(creation.get_nfilters()) if (kind := creation.get_filter(i)[0]) in RATIOS]
    if len(compressors) > 1:
        raise SourceError(f"{path}: chunks are compressed twice: refused", reason="too_large")
    if not compressors or dataset.id.get_storage_size() * RATIOS[compressors[0]] <= COLUMN_BYTES:
        return
    large: list[tuple[int, ...]] = []

    def collect(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.size * RATIOS[compressors[0]] > COLUMN_BYTES:
            large.append(chunk.chunk_offset)

    dataset.id.chunk_iter(collect)
    for offset in large:
        if compressors[0] == LZF or _inflates_beyond(dataset.id.read_direct_chunk(offset)[1], declared):
            raise SourceError(f"{path}: a chunk may inflate to more than its declared size", reason="too_large")


def _inflates_beyond(data: bytes, limit: int) -> bool:
    """Whether a deflated chunk inflates to more than `limit` bytes; False if it is damaged."""
    stream, size = zlib.decompressobj(), 0
    try:
        while data and not stream.eof and size <= limit:
            size += len(stream.decompress(data, PIECE))
            data = stream.unconsumed_tail
    except zlib.error:
        return False
    return size > limit
