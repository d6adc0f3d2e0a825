"""The command `oxe`: its subcommands, `--version`, and the handling of errors."""

import platform
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated

import typer

from oxe_tools.cli import datasets, export, mix
from oxe_tools.cli.check import check
from oxe_tools.cli.console import FAULT, INTERRUPTED, TERMINATED, USAGE, fail, make_printable, say
from oxe_tools.cli.convert import convert
from oxe_tools.cli.demo import demo
from oxe_tools.cli.eval import evaluate
from oxe_tools.cli.inspect import inspect
from oxe_tools.cli.merge import merge
from oxe_tools.cli.predict import predict
from oxe_tools.cli.stats import stats
from oxe_tools.cli.train import train
from oxe_tools.cli.upgrade import upgrade
from oxe_tools.cli.verify import verify
from schemas.errors import OxeError
from schemas.faults import described, fault, is_unforeseen

# Libraries whose versions may affect results; torch is not always installed.
LIBRARIES = ("apache-beam", "pyarrow", "polars", "torch")

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(inspect)
app.command()(convert)
app.command()(verify)
app.command()(upgrade)
app.command()(stats)
app.command()(check)
app.command()(demo)
app.command()(train)
app.command()(predict)
app.command("eval")(evaluate)
app.command()(merge)
app.add_typer(export.app, name="export")
app.add_typer(datasets.app, name="datasets")
app.add_typer(mix.app, name="mix")


def _print_versions(*, requested: bool) -> None:
    """Print the versions of oxe-tools, Python and the libraries, and exit; the libraries are not imported."""
    if not requested:
        return
    say(f"oxe-tools {version('oxe-tools')}")
    say(f"Python {platform.python_version()}")
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            say(f"{library} {version(library)}")
    raise typer.Exit


@app.callback()
def oxe(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors; accepted anywhere in the command line.")
    ] = False,
    versions: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_versions,
            is_eager=True,
            help="Print the versions of oxe-tools, Python and the libraries, and exit.",
        ),
    ] = False,
) -> None:
    """Convert robot demonstrations from many labs to one lossless, checked format, and train on them.

    Exit codes: 0 success, 1 completed but found failures, 2 usage or input error, 3 a fault of oxe-tools.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an OxeError is printed to stderr as one message, with exit code 2.

    Any other exception is a fault of ours: it is printed as one line that says how to report it, with exit code 3.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    stopped: list[int] = []
    make_printable()
    try:
        with _cleaning_up_on_sigterm(stopped):
            app([word for word in words if word != "--debug"], standalone_mode=True)
    except (OxeError, OSError) as error:
        if debug:
            raise
        fail(str(error), USAGE)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer exits on Ctrl-C without a message
            fail("terminated", TERMINATED) if stopped else fail("interrupted", INTERRUPTED)
        raise
    except MemoryError as error:
        if debug:
            raise
        fail(f"not enough memory ({described(error)})", USAGE)
    except BaseException as error:
        if not is_unforeseen(error):
            raise
        if debug:
            traceback.print_exception(error)
        fail(fault(error), FAULT)


@contextmanager
def _cleaning_up_on_sigterm(stopped: list[int]) -> Iterator[None]:
    """End the command on SIGTERM as on Ctrl-C, so that it removes its temporary files; adds the signal to `stopped`."""

    def stop(number: int, _: FrameType | None) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
