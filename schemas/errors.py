"""The errors that a user can see. The command line prints the message without a traceback and exits with status 2.

OxeError
├── UsageError          the call is wrong: a bad option, an output that already exists
├── SpecError           a declaration is wrong
├── SourceError         a source, or one episode of it, cannot be read
├── UnreachableError    a remote file cannot be read or written, after several tries
├── TooManyQuarantinedError  more episodes are unreadable than the user allows
├── DatasetError        a folder is not a published dataset, or the dataset is damaged
├── ViewError           a dataset does not have this view
├── StatsError          statistics are damaged or do not fit
├── MixtureError        a locked mixture is damaged, or its datasets have changed
├── CheckpointError     a checkpoint is damaged, has an unknown layout, or does not fit
├── TrainingError       a training run cannot continue: non-finite numbers, not enough memory
└── MissingExtraError   an optional package is not installed
"""

from collections.abc import Iterable
from difflib import get_close_matches

from schemas.text import shown

LISTED = 24  # maximum number of known words that a message lists


class OxeError(Exception):
    """Base class. The message has the place, the problem and the likely fix.

    Its text comes from foreign files in part, so it is safe to print: see `schemas.text.shown`.
    """

    def __init__(self, *lines: str) -> None:
        """Join the lines of the message; nearly every message has one."""
        super().__init__("\n".join(map(shown, lines)))


class UsageError(OxeError):
    """The call is wrong."""


class SpecError(OxeError):
    """A declaration cannot be read or does not fit its source."""


class SourceError(OxeError):
    """A source cannot be read.

    The manifest counts such errors by `reason`. `file` and `offset` (in bytes) are the place, if it is known.
    """

    def __init__(self, message: str, *, reason: str = "unreadable", file: str = "", offset: int | None = None) -> None:
        """Store the place separately; `str()` puts it before the message."""
        super().__init__(message)
        self.message = shown(message)
        self.reason = reason
        self.file = shown(file)
        self.offset = offset

    def at(self, file: str | None = None, *, prefix: str = "", offset: int | None = None) -> "SourceError":
        """Return a copy with `prefix` before the message; `file` and `offset` replace the error's own, if given.

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
        """Return the message after its place."""
        place = self.file + (f": byte {self.offset}" if self.offset is not None else "")
        return f"{place}: {self.message}" if place else self.message


class UnreachableError(OxeError):
    """A remote file cannot be read or written; finished work is kept, so the command can be run again later."""


class TooManyQuarantinedError(OxeError):
    """More episodes are unreadable than `--strict` or `--max-quarantine` allows."""


class DatasetError(OxeError):
    """A published dataset is damaged or incomplete, or the folder is not a dataset."""


class ViewError(OxeError):
    """A dataset does not have the requested view."""


class StatsError(OxeError):
    """Statistics are damaged, do not fit, or cannot be used with this method."""


class MixtureError(OxeError):
    """A locked mixture is damaged, or its datasets have changed since it was locked."""


class CheckpointError(OxeError):
    """A model's checkpoint is damaged, has an unknown layout, or does not fit its use."""


class TrainingError(OxeError):
    """A training run cannot continue; its last checkpoint is intact."""


class MissingExtraError(OxeError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str) -> None:
        """Build the message from the missing package and the extra that installs it."""
        super().__init__(f"this needs the package '{package}': pip install 'oxe-tools[{extra}]'")


def closest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or "".

    >>> closest("invrt", ["clip", "invert"])
    "; did you mean 'invert'?"
    """
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word and lists the known words.

    >>> did_you_mean("invrt", ["clip", "invert"])
    "; did you mean 'invert'? (known: clip, invert)"
    """
    words = sorted(known)
    hint = closest(word, words) or "."
    listed = words if len(words) <= LISTED else [*words[:LISTED], f"and {len(words) - LISTED} more"]
    return f"{hint} (known: {', '.join(listed) or 'none'})"
