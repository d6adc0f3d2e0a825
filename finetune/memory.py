"""Converts out-of-memory errors to errors that name a fix."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import OxeError


@contextmanager
def enough_memory(kind: type[OxeError], fix: str) -> Iterator[None]:
    """Raise an error of `kind` with a `fix` in place of any out-of-memory error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has a separate class only for the GPU
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        raise kind(f"out of memory ({text.splitlines()[0] if text else 'MemoryError'}); {fix}") from error
