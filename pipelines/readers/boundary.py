"""The boundary between foreign data and our code: whatever is raised inside becomes a SourceError.

A reader turns the errors that it foresees into a SourceError with a reason of its own. All others become one here, with
the type of the exception in the message. The reason is `unreadable` if a library raised it, and `unforeseen` if our own
code did, so that what may be a fault of ours is counted apart. Requests to stop pass, and so do exceptions that only a
mistake in our code can cause (see `schemas.faults`), so that no test misses them. A limit of this machine is not a
property of the data either: it ends the run, which can be continued.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import OxeError, SourceError, UnreachableError
from schemas.faults import described, is_mistake, is_raised_by_us, is_unforeseen

LIMITS = {errno.EMFILE, errno.ENFILE}  # too many files are open in this process, or on this machine


def source_error(error: BaseException, file: str = "") -> SourceError:
    """Return what a reader, its library or a decoder raised as an error of the source.

    The message does not contain the local path, because it is published. Requests to stop and our own mistakes are
    raised again, and so are errors of ours that are not about the data. Raises UnreachableError if too many files are
    open.
    """
    _check_limits(error, file)
    if isinstance(error, SourceError):
        return error.at(error.file or file)
    if isinstance(error, OxeError) or not is_unforeseen(error) or is_mistake(error):
        raise error
    if isinstance(error, MemoryError):
        return SourceError("needs more memory than there is", reason="too_large", file=file)
    if isinstance(error, RecursionError):
        return SourceError("nested too deeply", reason="too_large", file=file)
    if isinstance(error, OSError):
        why = error.strerror or described(error)
        return SourceError(f"cannot be read ({why})", file=file)
    why = described(error).replace(file, "...") if "/" in file else described(error)
    if is_raised_by_us(error):
        return SourceError(f"cannot be read ({why})", reason="unforeseen", file=file)
    return SourceError(f"cannot be read ({why})", file=file)


@contextmanager
def source_errors(file: str = "") -> Iterator[None]:
    """Turn everything that is raised inside into a SourceError that names the file."""
    try:
        yield
    except SourceError:
        raise
    except BaseException as error:
        raise source_error(error, file) from error


def _check_limits(error: BaseException, file: str) -> None:
    """Raise UnreachableError if the cause of an error is that too many files are open."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in LIMITS:
            why = f"cannot be read ({os.strerror(cause.errno)}); raise the limit, see 'ulimit -n'"
            raise UnreachableError(f"{file}: {why}") from error
        cause = cause.__cause__
