"""The command `oxe`: its subcommands, `--version`, and the handling of errors."""

import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from oxe_tools.cli import datasets, export, mix
from oxe_tools.cli.console import INTERRUPTED, USAGE, fail
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

# Libraries whose versions may affect results; torch is not always installed.
LIBRARIES = ("apache-beam", "pyarrow", "polars", "torch")

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(inspect)
app.command()(convert)
app.command()(verify)
app.command()(upgrade)
app.command()(stats)
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
    typer.echo(f"oxe-tools {version('oxe-tools')}\nPython {platform.python_version()}")
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            typer.echo(f"{library} {version(library)}")
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

    Exit codes: 0 success, 1 completed but found failures, 2 usage or input error.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an OxeError is printed to stderr as one message, with exit code 2."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"], standalone_mode=True)
    except (OxeError, OSError) as error:
        if debug:
            raise
        fail(str(error), USAGE)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer exits on Ctrl-C without a message
            fail("interrupted", INTERRUPTED)
        raise
