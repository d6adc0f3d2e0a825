"""Code that all commands use: options, exit codes, errors, tables, JSON and the progress bar."""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines.beam.progress import Progress
from schemas.errors import UsageError
from schemas.text import masked_json, shown

if TYPE_CHECKING:
    from tqdm import tqdm

FAILURES, USAGE, FAULT, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143  # exit codes; see the help of `oxe`

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output of this command.")]
Declaration = Annotated[
    str,
    typer.Argument(metavar="NAME|SPEC.toml|DIR", help="A shipped dataset, a declaration file, or an exported dataset."),
]
DatasetDir = Annotated[str, typer.Argument(metavar="DIR", help="A converted dataset: a folder or an fsspec URI.")]
Recordings = Annotated[
    str | None, typer.Option("--source", help="The source; by default the one that the declaration names.")
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow links that leave the source; use it only for sources you trust.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Number of processes on this machine.")]
Runner = Annotated[str | None, typer.Option("--runner", help="Run on a Beam runner, such as FlinkRunner.")]
BeamOptions = Annotated[str, typer.Option("--beam-options", help="Options of the Beam runner, as one quoted string.")]


class Dtype(StrEnum):
    """The floating-point types of a model."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def beam_words(options: str) -> tuple[str, ...]:
    """Split the value of --beam-options as a shell would."""
    try:
        return tuple(shlex.split(options))
    except ValueError as error:
        raise UsageError(f"--beam-options: {error}: {options}") from error


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line to stdout or stderr; foreign text in it cannot change the terminal."""
    typer.echo(shown(line), err=err)


def say_text(text: str) -> None:
    """Print several lines to stdout, such as a declaration; foreign text in a line cannot change the terminal."""
    for line in text.splitlines() or [""]:
        say(line)


def fail(message: str, code: int) -> NoReturn:
    """Print a message to stderr and exit."""
    first, *more = message.split("\n")
    for line in (f"oxe: {first}", *more):
        say(line, err=True)
    raise SystemExit(code)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON in ASCII, without the secrets in its URIs."""
    typer.echo(json.dumps(masked_json(value)))


def print_notes(notes: Iterable[str]) -> None:
    """Print notes to stderr."""
    for note in notes:
        print_note(note)


def print_note(note: str) -> None:
    """Print a note to stderr."""
    say(f"note: {note}", err=True)


def print_warning(warning: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {warning}", err=True)


def make_printable() -> None:
    """Let stdout and stderr escape what their encoding lacks, as that of an ASCII terminal does, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    padded: bool = False,
    width: int | None = None,
) -> None:
    """Print a table; `width` defaults to the terminal's width, or to 140 characters without a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=padded)
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))  # a str would be read as markup
    width = width or (None if Console().is_terminal else 140)
    Console(width=width, highlight=False).print(table)


def reason_counts(reasons: Mapping[str, int]) -> str:
    """Format reasons with their counts.

    >>> reason_counts({"bad_crc": 2, "zero_steps": 1})
    '2 bad_crc, 1 zero_steps'
    """
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


def file_count(count: int) -> str:
    """Format a number of files.

    >>> file_count(1)
    '1 file'
    """
    return f"{count} file{'s' * (count != 1)}"


def numbers(values: Iterable[float]) -> str:
    """Format numbers, separated by spaces.

    >>> numbers([0.1, 2 / 3])
    '0.1 0.6667'
    """
    return " ".join(f"{x:.4g}" for x in values)


def named_numbers(values: Mapping[str, float]) -> str:
    """Format numbers with their names.

    >>> named_numbers({"yaw": 0.0, "gripper": 1.0})
    'yaw 0, gripper 1'
    """
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


class Bar(Progress):
    """A progress bar on stderr."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        """Update `bar`."""
        self.bar = bar
        self.size = 0

    def expect(self, episodes: int, *, workers: int = 1) -> None:
        """Set the total number of episodes, so that the bar can estimate the remaining time."""
        self.bar.reset(total=episodes)
        if workers > 1:
            self.bar.set_description_str(f"{workers} workers")

    def warn(self, text: str) -> None:
        """Print a note above the bar."""
        self.bar.clear()
        print_notes([text])

    def __call__(self, episodes: int, size: int) -> None:
        """Advance the bar by a number of episodes."""
        self.size += size
        seconds = self.bar.format_dict["elapsed"]
        if self.size and seconds:
            self.bar.set_postfix_str(f"{self.size / seconds / 1e6:.0f} MB/s", refresh=False)
        self.bar.update(episodes)


@contextmanager
def progress(total: int | None = None) -> Iterator[Bar]:
    """Show a progress bar on stderr if it is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" episodes", disable=None, file=sys.stderr) as bar:
        yield Bar(bar)
