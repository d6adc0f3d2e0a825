"""Turn the errors that damaged files cause into errors that name the file."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import SourceError


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any error that a damaged file causes into a SourceError that names the file."""
    try:
        yield
    except SourceError as error:
        raise error.at(error.file or path) from error
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        why = str(error).replace(path, "") or type(error).__name__
        raise SourceError(f"cannot be read ({why})", file=path) from error
