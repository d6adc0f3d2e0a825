"""What the commands share: their common options, exit codes, one message on stderr, and the progress bar."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from tqdm import tqdm

from pipelines.beam.progress import Progress

FAILURES, USAGE, INTERRUPTED = 1, 2, 130  # exit codes: the work ran and found failures; usage or input error; Ctrl-C

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what this command wrote there before.")]


def fail(message: str, code: int) -> None:
    """Print one message on stderr and exit."""
    typer.echo(f"oxe: {message}", err=True)
    raise SystemExit(code)


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
    with tqdm(total=total, unit=" episodes", disable=None, file=sys.stderr) as bar:
        yield Bar(bar)
