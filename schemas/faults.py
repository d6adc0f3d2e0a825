"""Describe exceptions that nobody foresaw: those of libraries, and those of our own mistakes."""

import re
from pathlib import Path
from traceback import extract_tb

from schemas.text import shown

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "stats", "pipelines", "finetune", "oxe_tools")
MISTAKES = (AssertionError, NameError, NotImplementedError)  # raised by our code, they are never a property of the data
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")  # memory addresses differ in every run
LONGEST = 300  # characters of a library's message


def is_unforeseen(error: BaseException) -> bool:
    """Whether an exception is an error and not a request to stop, such as Ctrl-C.

    A panic of a Rust library, such as polars, is an error, although it is not an Exception.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def is_mistake(error: BaseException) -> bool:
    """Whether our own code raised an exception that only a mistake in it can cause."""
    return isinstance(error, MISTAKES) and is_raised_by_us(error)


def is_raised_by_us(error: BaseException) -> bool:
    """Whether our own code, and not that of a library, raised an exception."""
    frames = extract_tb(error.__traceback__)
    return bool(frames) and _is_ours(frames[-1].filename)


def described(error: BaseException) -> str:
    """Return the type and the message of an exception as one short line that is the same in every run.

    >>> described(ValueError("no room in <Buffer at 0x7f0a1b2c3d>"))
    'ValueError: no room in <Buffer at ...>'
    """
    kind, text = type(error).__name__, ADDRESS.sub("...", str(error).strip().partition("\n")[0])
    return shown(f"{kind}: {text[:LONGEST]}" if text else kind)


def fault(error: BaseException) -> str:
    """Return the one line that reports an exception as a fault of ours."""
    places = [frame for frame in extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    where = f" at {Path(places[-1].filename).relative_to(ROOT)}:{places[-1].lineno}" if places else ""
    return (
        f"a fault of oxe-tools, not of your input: {described(error)}{where}; please report this line together with "
        f"the output of 'oxe --version' and of the same command with --debug"
    )


def _is_ours(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
