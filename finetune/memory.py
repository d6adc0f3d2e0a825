"""Memory that does not suffice is said with what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import OxeError


@contextmanager
def enough_memory(kind: type[OxeError], fix: str) -> Iterator[None]:
    """Raise an error of ours that says what to lower, in place of one of the many that tell of too little memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has an own class for the GPU alone
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        raise kind(f"out of memory ({text.splitlines()[0] if text else 'MemoryError'}); {fix}") from error
