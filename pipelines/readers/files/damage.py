"""Turn the errors that damaged files cause into errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.readers.boundary import source_error
from schemas.errors import SourceError


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any error that a damaged file causes into a SourceError that names the file."""
    try:
        yield
    except SourceError as error:
        raise error.at(error.file or path) from error
    except BaseException as error:
        raise source_error(error, path) from error
