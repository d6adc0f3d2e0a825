"""What the commands share: common options, exit codes, one message on stderr, tables, JSON and the progress bar."""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines.beam.progress import Progress
from schemas.errors import UsageError

if TYPE_CHECKING:
    from tqdm import tqdm

FAILURES, USAGE, INTERRUPTED = 1, 2, 130  # exit codes: the work ran and found failures; usage or input error; Ctrl-C

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what this command wrote there before.")]
Declaration = Annotated[
    str, typer.Argument(metavar="NAME|SPEC.toml|DIR", help="A shipped declaration, a file, or an exported dataset.")
]
DatasetDir = Annotated[str, typer.Argument(metavar="DIR", help="A converted dataset: a folder or an fsspec URI.")]
Recordings = Annotated[
    str | None, typer.Option("--source", help="Where the recordings are, if not where the declaration says.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine.")]
Runner = Annotated[str | None, typer.Option("--runner", help="Another Beam runner, as for 'oxe convert'.")]
BeamOptions = Annotated[str, typer.Option("--beam-options", help="Options for that runner, as one quoted text.")]


class Dtype(StrEnum):
    """The numbers that a model can compute with."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def beam_words(options: str) -> tuple[str, ...]:
    """Split the text of --beam-options as a shell would."""
    try:
        return tuple(shlex.split(options))
    except ValueError as error:
        raise UsageError(f"--beam-options: {error}: {options}") from error


def fail(message: str, code: int) -> NoReturn:
    """Print one message on stderr and exit."""
    typer.echo(f"oxe: {message}", err=True)
    raise SystemExit(code)


def print_json(value: Any) -> None:
    """Print one object."""
    typer.echo(json.dumps(value))


def print_notes(notes: Iterable[str]) -> None:
    """Print on stderr what the user should know before using what was made."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    padded: bool = False,
    width: int | None = None,
) -> None:
    """Print a table: as wide as the terminal, or 140 characters without one, unless `width` is given."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=padded)
    for row in rows:
        table.add_row(*row)
    width = width or (None if Console().is_terminal else 140)
    Console(width=width, highlight=False).print(table)


def counted(reasons: Mapping[str, int]) -> str:
    """List reasons with their counts.

    >>> counted({"bad_crc": 2, "zero_steps": 1})
    '2 bad_crc, 1 zero_steps'
    """
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


def files(count: int) -> str:
    """Count files.

    >>> files(1)
    '1 file'
    """
    return f"{count} file{'s' * (count != 1)}"


def numbers(values: Iterable[float]) -> str:
    """Write numbers side by side.

    >>> numbers([0.1, 2 / 3])
    '0.1 0.6667'
    """
    return " ".join(f"{x:.4g}" for x in values)


class Bar(Progress):
    """Progress as a bar on stderr."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        """Draw on `bar`."""
        self.bar = bar
        self.size = 0

    def expect(self, episodes: int, *, workers: int = 1) -> None:
        """Give the bar its end, and so a time when it will be reached."""
        self.bar.reset(total=episodes)
        if workers > 1:
            self.bar.set_description_str(f"{workers} workers")

    def __call__(self, episodes: int, size: int) -> None:
        """Move on."""
        self.size += size
        seconds = self.bar.format_dict["elapsed"]
        if self.size and seconds:
            self.bar.set_postfix_str(f"{self.size / seconds / 1e6:.0f} MB/s", refresh=False)
        self.bar.update(episodes)


@contextmanager
def progress(total: int | None = None) -> Iterator[Bar]:
    """Show a bar of episodes on stderr, if that is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" episodes", disable=None, file=sys.stderr) as bar:
        yield Bar(bar)
