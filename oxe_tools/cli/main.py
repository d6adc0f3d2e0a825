"""The command `oxe`: it parses, calls one function, and prints."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from oxe_tools.cli import eval as cli_eval
from oxe_tools.cli import merge as cli_merge
from oxe_tools.cli import mix as cli_mix
from oxe_tools.cli import predict as cli_predict
from oxe_tools.cli import show
from oxe_tools.cli import train as cli_train
from oxe_tools.cli.console import FAILURES, INTERRUPTED, USAGE, Json, Overwrite, fail, progress
from schemas.errors import OxeError, UsageError
from stats.formats import Form

if TYPE_CHECKING:
    from pipelines.beam.engine import Engine
    from pipelines.export.plan import ExportOptions

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
export_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write a dataset in another format.")
app.add_typer(export_app, name="export")
datasets_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look up the declared datasets.")
app.add_typer(datasets_app, name="datasets")
app.add_typer(cli_mix.app, name="mix")

Declaration = Annotated[
    str, typer.Argument(metavar="NAME|SPEC.toml|DIR", help="A shipped declaration, a file, or an exported dataset.")
]
ExportView = Annotated[
    str | None, typer.Option("--view", help="Write this view's actions, without the steps it masks.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine.")]
VideoForm = Literal["h264", "av1", "none"]
LeRobotVersion = Literal["3.0", "2.1"]
DatasetDir = Annotated[str, typer.Argument(metavar="DIR", help="A converted dataset: a folder or an fsspec URI.")]


@app.callback()
def oxe(
    *, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False
) -> None:
    """Robot demonstrations from many labs in one lossless, declared, checked format.

    Exit codes: 0 success, 1 the work ran and found failures, 2 usage or input error.
    """


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="A source: a folder, a file, or an fsspec URI.")],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only the first N episodes.")] = None,
    draft: Annotated[
        str | None, typer.Option(metavar="SPEC.toml", help="Write a declaration proposed from the data; - prints it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --draft.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a source holds, and draft its declaration; list the sources of a folder that holds several.

    \b
    Example: oxe inspect data/bridge_dataset/1.0.0
    """
    from oxe_tools import drafts
    from pipelines.inspect.draft.sample import EPISODES
    from pipelines.inspect.inspect import inspect as run
    from pipelines.readers.find import sources

    listed = sources(source)
    if len(listed) > 1 and draft is None:
        rows = [{"format": found.format, "uri": found.uri} for found in listed]
        (show.as_json if as_json else show.sources)({"sources": rows})
        return
    if len(listed) == 1 and listed[0].uri.rstrip("/") != source.rstrip("/"):
        typer.echo(f"the only source found below {source}: {listed[0].uri}", err=True)
    proposed = drafts.draft(source, draft, limit=limit, overwrite=overwrite) if draft else None
    if proposed and draft == "-" and not as_json:
        typer.echo(proposed.text(), nl=False)
        return
    with progress() as bar:
        found = run(source, limit=limit or (EPISODES if draft else None), progress=bar)
    if as_json:
        show.as_json({**found.to_json(), "draft": proposed.to_json()} if proposed else found.to_json())
    else:
        show.inspection(found.to_json())
    if proposed and not as_json:
        show.draft(str(draft), proposed)
    if found.unreadable:
        counts = show.counted(found.unreadable)
        fail(f"unreadable episodes: {counts}; the first one: {found.first_unreadable}", FAILURES)


@app.command()
def convert(
    declaration: Declaration,
    *,
    out: Annotated[str, typer.Option(help="The folder of the new dataset, or an fsspec URI.")],
    source: Annotated[
        str | None, typer.Option(help="Where the recordings are, if not where the declaration says.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N episodes.")] = None,
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw/--no-keep-raw", help="Keep the source's own numbers as raw.*.")
    ] = True,
    materialize: Annotated[
        list[str] | None, typer.Option(metavar="VIEW", help="Store this view as a column, too.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    runner: Annotated[
        str | None, typer.Option(help="Another Beam runner: FlinkRunner, SparkRunner, DataflowRunner.")
    ] = None,
    beam_options: Annotated[str, typer.Option(help="Options for that runner, as one quoted text.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first episode that cannot be read.")] = False,
    max_quarantine: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Stop when more than N episodes cannot be read.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the declaration against the source; write nothing.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the files that the source has more than the dataset.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a source into one unified dataset.

    \b
    Example: oxe convert bridge_dataset --source data/bridge_dataset/1.0.0 --out bridge
    """
    from oxe_tools import drafts
    from pipelines.beam.engine import Engine
    from pipelines.convert import convert as work
    from pipelines.convert.records import Options
    from schemas.declarations import catalog

    spec = drafts.declared(declaration)
    source = source or catalog.source_of(declaration, spec)
    options = Options(split=split, limit=limit, keep_raw=keep_raw, materialize=tuple(materialize or ()))
    if dry_run:
        planned = work.dry_run(spec, source=source, options=options, append_to=out if append else None)
        (show.as_json if as_json else show.plan)(planned.to_json())
        return
    with progress() as bar:
        report = work.convert(
            spec,
            out,
            source=source,
            options=options,
            engine=Engine(workers=workers, runner=runner, options=_words(beam_options)),
            max_quarantine=0 if strict else max_quarantine,
            append=append,
            overwrite=overwrite,
            progress=bar,
        )
    if as_json:
        show.as_json(report.to_json())
    else:
        show.conversion(report.to_json())
    show.unknowns(spec.name, [spec.action_space, spec.state_space])
    show.notes(report.notes)
    for problem in report.problems[:5]:
        typer.echo(
            f"quarantined: episode {problem.index}: {problem.reason}: {problem.detail} ({problem.file})", err=True
        )
    quarantined = Counter(problem.reason for problem in report.problems) if append else report.quarantined
    if quarantined:
        fail(f"{out}: quarantined {show.counted(quarantined)}; see meta/quarantine.parquet", FAILURES)


@app.command()
def verify(
    directory: DatasetDir,
    *,
    source: Annotated[str | None, typer.Option(help="The source, if not the one it was converted from.")] = None,
    as_json: Json = False,
) -> None:
    """Read a dataset and its source again and compare every number, image byte, count, digest and index entry.

    Of an export, the source is the dataset that it was made from.

    \b
    Example: oxe verify bridge
    """
    from pipelines.export.ledger import RECORD
    from pipelines.export.verify import verify_export
    from pipelines.verify import verify as run
    from schemas.store.dataset import open_dataset

    with progress() as bar:
        if (Path(directory) / RECORD).is_file():
            found = verify_export(Path(directory), source=source, progress=bar)
        else:
            dataset = open_dataset(directory)
            bar.expect(len(dataset))
            found = run(dataset, source=source, progress=bar)
    if as_json:
        show.as_json(found.to_json())
    else:
        what = f"{found.episodes} episodes, {found.steps} steps, {found.numbers} numbers, {found.images} images"
        typer.echo(f"{directory}: {what} in {show.files(found.files)}; source {found.source}")
    for difference in found.first:
        typer.echo(difference, err=True)
    if not found.ok:
        fail(f"{directory}: {found.differences} differences", FAILURES)


@app.command()
def stats(
    target: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A converted dataset; with --from, NAME[@digest].")],
    *,
    view: Annotated[str | None, typer.Option(help="Of this view's actions, at the steps that it keeps.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    filters: Annotated[
        str | None, typer.Option("--filter", metavar="COND", help="Only episodes like 'length >= 20 and id != \"a\"'.")
    ] = None,
    chunk: Annotated[int, typer.Option(min=0, metavar="H", help="Also of chunks of H consecutive actions.")] = 0,
    merge: Annotated[
        list[str] | None, typer.Option(metavar="DIR2", help="Count this dataset of the same embodiment in, too.")
    ] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Write the file that a trainer reads.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the file here instead of on stdout.")] = None,
    diff: Annotated[str | None, typer.Option(metavar="DIR2|FILE", help="Say what differs, and if it matters.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT|FILE", help="Say how much lies outside what it was trained on.")
    ] = None,
    publish: Annotated[str | None, typer.Option(metavar="URI", help="Add them to the registry at URI.")] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="URI", help="Fetch NAME from this registry.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    runner: Annotated[str | None, typer.Option(help="Another Beam runner, as for 'oxe convert'.")] = None,
    beam_options: Annotated[str, typer.Option(help="Options for that runner, as one quoted text.")] = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compute exact normalization statistics, and write, compare, publish or fetch them.

    \b
    Example: oxe stats bridge --view openvla --format openvla --out dataset_statistics.json
    """
    from oxe_tools import statistics as work
    from pipelines.beam.engine import Engine
    from pipelines.statistics.numbers import Selection

    modes = {"--diff": diff, "--against": against, "--publish": publish, "--format or --out": form or out}
    _check_together(modes)
    _check_together({"--diff": diff, "--against": against, "--merge": merge, "--from": source})
    selection = Selection(view=view, split=split, filters=filters, chunk=chunk)
    engine = Engine(workers=workers, runner=runner, options=_words(beam_options))
    if diff or against:
        found = work.beside(target, diff or against or "", selection=selection, engine=engine)
        (show.as_json if as_json else show.comparison)(found.to_json())
        if found.matters:
            fail(f"{target}: differs from {found.theirs} in what matters", FAILURES)
        return
    record = work.found(target, merge or [], source=source, selection=selection, engine=engine)
    if publish:
        name = work.publish(record, publish)
        show.as_json({"published": name, "uri": publish}) if as_json else typer.echo(f"{publish}: {name}")
    elif form or out:
        work.write(record, form or "native", out=out, overwrite=overwrite)
        if out:
            told = {"out": str(out), "format": form or "native", "name": record.name}
            show.as_json(told) if as_json else typer.echo(f"{out}: {told['format']} statistics of {record.name}")
    elif as_json:
        show.as_json(record.to_json())
    else:
        show.statistics(record)


@export_app.command("rlds")
def export_rlds(
    directory: DatasetDir,
    *,
    out: Annotated[Path, typer.Option(help="The folder of the RLDS dataset.")],
    view: ExportView = None,
    workers: Workers = 1,
    runner: Annotated[str | None, typer.Option(help="Another Beam runner, as for 'oxe convert'.")] = None,
    beam_options: Annotated[str, typer.Option(help="Options for that runner, as one quoted text.")] = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a dataset as RLDS, which tensorflow-datasets opens and 'oxe convert' reads back.

    \b
    Example: oxe export rlds bridge --view openvla --out bridge_rlds/1.0.0
    """
    from pipelines.beam.engine import Engine
    from pipelines.export.plan import ExportOptions

    engine = Engine(workers=workers, runner=runner, options=_words(beam_options))
    _export(
        directory,
        out,
        ExportOptions(format="rlds", version="1.0.0", view=view),
        engine=engine,
        overwrite=overwrite,
        as_json=as_json,
    )


@export_app.command("lerobot")
def export_lerobot(
    directory: DatasetDir,
    *,
    out: Annotated[Path, typer.Option(help="The folder of the LeRobotDataset.")],
    video: Annotated[
        VideoForm, typer.Option(help="Colour images as videos, or as they are in image columns.")
    ] = "h264",
    view: ExportView = None,
    version: Annotated[LeRobotVersion, typer.Option(help="The LeRobotDataset format.")] = "3.0",
    fps: Annotated[
        float | None, typer.Option(help="Frames a second, where the dataset does not know its control rate.")
    ] = None,
    crf: Annotated[int, typer.Option(min=0, max=63, help="How much a video may lose: 0 least.")] = 30,
    gop: Annotated[int, typer.Option(min=1, help="Every n-th frame of a video is a key frame.")] = 2,
    workers: Workers = 1,
    runner: Annotated[str | None, typer.Option(help="Another Beam runner, as for 'oxe convert'.")] = None,
    beam_options: Annotated[str, typer.Option(help="Options for that runner, as one quoted text.")] = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a dataset as a LeRobotDataset, which 'oxe convert' reads back and 'oxe verify' compares.

    \b
    Example: oxe export lerobot bridge --video h264 --out bridge_lerobot
    """
    from pipelines.beam.engine import Engine
    from pipelines.export.plan import ExportOptions

    asked = ExportOptions(format="lerobot", version=version, view=view, fps=fps, video=video, crf=crf, gop=gop)
    engine = Engine(workers=workers, runner=runner, options=_words(beam_options))
    _export(directory, out, asked, engine=engine, overwrite=overwrite, as_json=as_json)


def _export(
    directory: str, out: Path, asked: "ExportOptions", *, engine: "Engine", overwrite: bool, as_json: bool
) -> None:
    """Export, and print what became of it."""
    from pipelines.export.run import export
    from schemas.store.dataset import open_dataset

    dataset = open_dataset(directory)
    with progress(len(dataset)) as bar:
        report = export(dataset, out, asked, engine=engine, overwrite=overwrite, progress=bar)
    (show.as_json if as_json else show.exported)(report.to_json())
    if report.without_steps:
        typer.echo(f"left out: {report.without_steps} episodes of which the view masks every step", err=True)
    for column, why in report.left_out.items():
        typer.echo(f"left out: {column}: {why}", err=True)
    show.notes(report.notes)


@datasets_app.command("list")
def datasets_list(*, as_json: Json = False) -> None:
    """List the declared datasets: robot, control rate, episodes and views.

    \b
    Example: oxe datasets list
    """
    from oxe_tools import datasets

    rows = [datasets.row(declared) for declared in datasets.listed()]
    if as_json:
        show.as_json({"datasets": rows})
    else:
        show.datasets(rows)


@datasets_app.command("show")
def datasets_show(declaration: Declaration, *, as_json: Json = False) -> None:
    """Tell what is known about one dataset: vectors, cameras, views, size, source, and what to beware of.

    \b
    Example: oxe datasets show taco_play
    """
    from oxe_tools import datasets
    from schemas.declarations import catalog

    spec = catalog.dataset(declaration)
    if as_json:
        show.as_json(datasets.details(spec))
    else:
        typer.echo(datasets.section(spec))


@datasets_app.command("check")
def datasets_check(
    declaration: Declaration,
    *,
    source: Annotated[
        str | None, typer.Option(help="Where the recordings are, if not where the declaration says.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Read the first N episodes.")] = 3,
    as_json: Json = False,
) -> None:
    """Compare a declaration's keys, shapes and ranges with a source, before a long conversion.

    \b
    Example: oxe datasets check bridge_dataset --source data/bridge_dataset/1.0.0
    """
    from pipelines.inspect.check import check
    from schemas.declarations import catalog

    spec = catalog.dataset(declaration)
    uri = source or catalog.source_of(declaration, spec)
    if uri is None:
        fail(f"{spec.name}: its declaration names no source; give --source", USAGE)
    found = check(spec, str(uri), episodes=limit)
    if as_json:
        show.as_json(found.to_json())
    else:
        typer.echo(f"{spec.name}: {found.read} episodes read, {found.dropped} of them left out by its filters")
        for note in found.notes:
            typer.echo(f"note: {note}")
    for problem in found.problems:
        typer.echo(problem, err=True)
    if not found.ok:
        fail(f"{spec.name}: {len(found.problems)} problems", FAILURES)


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option(help="Where to put the recordings and the datasets.")] = Path("oxe_demo"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Record one motion as three labs would, convert all three into one schema, verify, and compare.

    \b
    Example: oxe demo --out oxe_demo
    """
    from oxe_tools.demo.demo import SHOWN_STEP, VIEW
    from oxe_tools.demo.demo import demo as run

    labs = run(out, overwrite=overwrite, say=lambda text: typer.echo(text, err=True))
    if as_json:
        show.as_json(
            {
                lab.spec.name: {**lab.report.to_json(), "max_error": lab.error, "verified": lab.verification.ok}
                for lab in labs
            }
        )
    else:
        show.labs(labs, out, step=SHOWN_STEP, view=VIEW)


app.command()(cli_train.train)
app.command()(cli_predict.predict)
app.command("eval")(cli_eval.evaluate)
app.command()(cli_merge.merge)


def _words(beam_options: str) -> tuple[str, ...]:
    """Split the text of --beam-options as a shell would."""
    try:
        return tuple(shlex.split(beam_options))
    except ValueError as error:
        raise UsageError(f"--beam-options: {error}: {beam_options}") from error


def _check_together(options: Mapping[str, object]) -> None:
    """Refuse options that exclude one another."""
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error of ours is one message on stderr and exit code 2."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"], standalone_mode=True)
    except (OxeError, OSError) as error:
        if debug:
            raise
        fail(str(error), USAGE)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            fail("interrupted", INTERRUPTED)
        raise
