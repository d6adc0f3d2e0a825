"""Every error a user can meet. All exit with code 2, the message on stderr and no traceback.

OxeError
├── UsageError          the call is wrong: a flag, an output that exists
├── SpecError           a declaration is wrong
├── SourceError         a source, or one episode of it, cannot be read
├── UnreachableError    a remote file cannot be read or written, however often one tries
├── TooManyQuarantinedError  more episodes cannot be read than the user allows
├── DatasetError        a published dataset is damaged, or is not one
├── ViewError           a dataset cannot give this view
├── StatsError          statistics are damaged, or cannot be used as asked
├── MixtureError        a locked mixture is damaged, or no longer what was locked
├── CheckpointError     a model's checkpoint is damaged, of another layout, or does not fit what it is used for
├── TrainingError       a training cannot go on: numbers that are not finite, memory that does not suffice
└── MissingExtraError   an optional package is not installed
"""

from collections.abc import Iterable
from difflib import get_close_matches

LISTED = 24  # known words that an error names


class OxeError(Exception):
    """An error with a message for people: where, what, and the likely fix."""


class UsageError(OxeError):
    """The call itself is wrong."""


class SpecError(OxeError):
    """A declaration cannot be read or does not fit its source."""


class SourceError(OxeError):
    """A source cannot be read.

    `reason` is the word it is counted under in the manifest; `file` and `offset` (bytes) say where, when known.
    """

    def __init__(self, message: str, *, reason: str = "unreadable", file: str = "", offset: int | None = None) -> None:
        """Keep the place apart from the message."""
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.file = file
        self.offset = offset

    def at(self, file: str | None = None, *, prefix: str = "", offset: int | None = None) -> "SourceError":
        """Return the same error with `prefix` before its message; `file` and `offset` replace its own, if given.

        >>> str(SourceError("not UTF-8", reason="bad_utf8").at("demo.hdf5", prefix="demo_7"))
        'demo.hdf5: demo_7: not UTF-8'
        """
        return SourceError(
            f"{prefix}: {self.message}" if prefix else self.message,
            reason=self.reason,
            file=self.file if file is None else file,
            offset=self.offset if offset is None else offset,
        )

    def __str__(self) -> str:
        """Lead with the place."""
        place = self.file + (f": byte {self.offset}" if self.offset is not None else "")
        return f"{place}: {self.message}" if place else self.message


class UnreachableError(OxeError):
    """A remote file cannot be read or written; what was done stays done, so the work can go on later."""


class TooManyQuarantinedError(OxeError):
    """More episodes cannot be read than `--strict` or `--max-quarantine` allows."""


class DatasetError(OxeError):
    """A published dataset is damaged, incomplete or not one of ours."""


class ViewError(OxeError):
    """A dataset cannot give the view that was asked for."""


class StatsError(OxeError):
    """Statistics are damaged, do not fit, or cannot be used as asked."""


class MixtureError(OxeError):
    """A locked mixture is damaged, or is no longer what was locked."""


class CheckpointError(OxeError):
    """A model's checkpoint is damaged, of another layout, or does not fit what it is used for."""


class TrainingError(OxeError):
    """A training cannot go on as it is; its last checkpoint is whole."""


class MissingExtraError(OxeError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str) -> None:
        """Say what to install."""
        super().__init__(f"this needs the package '{package}': pip install 'oxe-tools[{extra}]'")


def closest(word: str, known: Iterable[str]) -> str:
    """Name the closest known word, if one is close.

    >>> closest("invrt", ["clip", "invert"])
    "; did you mean 'invert'?"
    """
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the closest known word and list the others.

    >>> did_you_mean("invrt", ["clip", "invert"])
    "; did you mean 'invert'? (known: clip, invert)"
    """
    words = sorted(known)
    hint = closest(word, words) or "."
    listed = words if len(words) <= LISTED else [*words[:LISTED], f"and {len(words) - LISTED} more"]
    return f"{hint} (known: {', '.join(listed) or 'none'})"
