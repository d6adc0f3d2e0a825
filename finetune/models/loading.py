"""Converts errors of transformers about attention, quantization and options to errors of one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import UsageError


@contextmanager
def loadable(where: str) -> Iterator[None]:
    """Raise a UsageError that starts with `where`, if transformers cannot build a model with the given options.

    A package may be missing, for example that of flash attention, or an option may be unknown.
    """
    try:
        yield
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"{where}: {text}; use the attention sdpa, no quantization and no other options") from error
