"""Hashes the stored tensors of safetensors files, and refuses those with NaN or infinite values. Works without torch.

The files are read once, as they are stored: before weights are cast or quantized.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xxhash

from schemas.errors import CheckpointError
from schemas.parsing import parse_json
from schemas.source import Array

CHUNK = 1 << 17  # numbers that are checked at once; they fit in the cache of a core
THREADS = 4
LENGTH = np.dtype("<u8")  # a file starts with the size of its header
Result = TypeVar("Result")
QUANTIZED = "quantized weights are not supported; name a checkpoint with floating-point weights"


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """How a floating-point type stores NaN and infinity: exactly for these, `op(bits, operand)` has the value `top`.

    No number gives a larger value than `top`, so a maximum finds them, which is faster than a comparison.
    """

    unsigned: str
    op: np.ufunc
    operand: int
    top: int

    def first_special(self, raw: Array) -> int | None:
        """Return the index of the first number in the bytes `raw` that is NaN or infinite; None if all are finite."""
        values, operand = raw.view(self.unsigned), np.dtype(self.unsigned).type(self.operand)
        out = np.empty(min(CHUNK, len(values)), self.unsigned)
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            bits = self.op(chunk, operand, out=out[: len(chunk)])
            if bits.max() == self.top:
                return start + int(bits.argmax())
        return None


FLOATS = {  # by the names of safetensors; the bits of an exponent that are all 1, or the one pattern that is NaN
    "F64": FloatFormat("<u8", np.bitwise_and, 0x7FF0 << 48, 0x7FF0 << 48),
    "F32": FloatFormat("<u4", np.bitwise_and, 0x7F80 << 16, 0x7F80 << 16),
    "F16": FloatFormat("<u2", np.bitwise_and, 0x7C00, 0x7C00),
    "BF16": FloatFormat("<u2", np.bitwise_and, 0x7F80, 0x7F80),
    "F8_E5M2": FloatFormat("u1", np.bitwise_and, 0x7C, 0x7C),
    "F8_E4M3": FloatFormat("u1", np.bitwise_and, 0x7F, 0x7F),
    "F8_E5M2FNUZ": FloatFormat("u1", np.bitwise_xor, 0x7F, 0xFF),
    "F8_E4M3FNUZ": FloatFormat("u1", np.bitwise_xor, 0x7F, 0xFF),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: its name, type and shape, and its bytes, which are mapped into memory."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: Array  # [N] uint8

    def check(self) -> None:
        """Raise CheckpointError if the tensor is quantized, or has a NaN or infinite value."""
        if self.dtype not in FLOATS:
            raise CheckpointError(f"{self.path}: {self.name} has the type {self.dtype}: {QUANTIZED}")
        index = FLOATS[self.dtype].first_special(self.raw)
        if index is not None:
            place = [int(i) for i in np.unravel_index(index, self.shape)]
            raise CheckpointError(
                f"{self.path}: {self.name}{place} is NaN or infinite: the weights are damaged; download or train them "
                "again"
            )

    def checked_digest(self) -> str:
        """Hash the name, type, shape and bytes (xxh3-128), after `check`."""
        self.check()
        hashed = xxhash.xxh3_128(json.dumps([self.name, self.dtype, self.shape]).encode())
        hashed.update(self.raw.data)
        return hashed.hexdigest()


def checked_digest(files: Iterable[Path]) -> str:
    """Return a digest of all tensors in safetensors files, after checking their values.

    The digest does not depend on the order of the tensors or on how they are divided into files. Raises
    CheckpointError if a tensor is quantized or has a NaN or infinite value.
    """
    digests = _of_each(StoredTensor.checked_digest, files)
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(digests)).encode())


def check_finite(files: Iterable[Path]) -> None:
    """Raise CheckpointError if a tensor in safetensors files is quantized or has a NaN or infinite value."""
    _of_each(StoredTensor.check, files)


def _of_each(work: Callable[[StoredTensor], Result], files: Iterable[Path]) -> list[Result]:
    """Call `work` for each tensor, in a few threads, and return the results."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, (tensor for path in files for tensor in stored_tensors(path))))


def stored_tensors(path: Path) -> Iterator[StoredTensor]:
    """Yield the tensors of a safetensors file."""
    header, data = _opened(path)
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        yield StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), data[start:end])


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, which is empty if it has none."""
    return dict(_header(path)[0].get("__metadata__") or {})


def _opened(path: Path) -> tuple[Mapping[str, Any], Array]:
    header, start = _header(path)
    size = path.stat().st_size
    data = np.memmap(path, np.uint8, "r")[start:] if size > start else np.empty(0, np.uint8)
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, data


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """Return the header of a file, and where it ends."""
    try:
        with path.open("rb") as file:
            start = LENGTH.itemsize + int(np.frombuffer(file.read(LENGTH.itemsize), LENGTH)[0])
            if start > path.stat().st_size:
                raise ValueError("shorter than its header says")
            return dict(parse_json(file.read(start - LENGTH.itemsize))), start
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
