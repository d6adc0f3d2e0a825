"""Converts out-of-memory errors to errors that suggest a fix."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import OxeError


@contextmanager
def enough_memory(kind: type[OxeError], fix: str) -> Iterator[None]:
    """Replace any out-of-memory error by an error of class `kind`, whose message suggests `fix`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises its own class for GPUs only
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        raise kind(f"out of memory ({text.splitlines()[0] if text else 'MemoryError'}); {fix}") from error
