"""The commands `oxe export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from oxe_tools.cli.console import (
    BeamOptions,
    DatasetDir,
    Json,
    Overwrite,
    Runner,
    Workers,
    beam_words,
    file_count,
    print_json,
    print_notes,
    progress,
    say,
)

if TYPE_CHECKING:
    from pipelines.beam.engine import Engine
    from pipelines.export.plan import ExportOptions

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Export a dataset to another format.")

View = Annotated[
    str | None, typer.Option("--view", help="Export this view's actions, without the steps that it masks.")
]
VideoForm = Literal["h264", "av1", "none"]
ImageForm = Literal["unchanged", "png"]
LeRobotVersion = Literal["3.0", "2.1"]


@app.command()
def rlds(
    directory: DatasetDir,
    *,
    out: Annotated[Path, typer.Option(help="Where to write the RLDS dataset.")],
    view: View = None,
    workers: Workers = 1,
    runner: Runner = None,
    beam_options: BeamOptions = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a dataset as RLDS.

    The result can be opened with tensorflow-datasets and converted with 'oxe convert'.

    \b
    Example: oxe export rlds bridge --view openvla --out bridge_rlds/1.0.0
    """
    from pipelines.beam.engine import Engine
    from pipelines.export.plan import ExportOptions

    options = ExportOptions(format="rlds", version="1.0.0", view=view)
    engine = Engine(workers=workers, runner=runner, options=beam_words(beam_options))
    _export(directory, out, options, engine=engine, overwrite=overwrite, as_json=as_json)


@app.command()
def lerobot(
    directory: DatasetDir,
    *,
    out: Annotated[Path, typer.Option(help="Where to write the LeRobotDataset.")],
    video: Annotated[
        VideoForm, typer.Option(help="The codec of colour videos; none stores the images unchanged.")
    ] = "h264",
    images: Annotated[
        ImageForm, typer.Option(help="Images that LeRobot cannot open: refuse them (unchanged), or make them RGB PNGs.")
    ] = "unchanged",
    view: View = None,
    version: Annotated[LeRobotVersion, typer.Option(help="The version of the LeRobotDataset format.")] = "3.0",
    fps: Annotated[
        float | None, typer.Option(help="Frames per second, for a dataset without a known control rate.")
    ] = None,
    crf: Annotated[int, typer.Option(min=0, max=63, help="Compression of videos; 0 has the best quality.")] = 30,
    gop: Annotated[int, typer.Option(min=1, help="Every n-th frame of a video is a key frame.")] = 2,
    workers: Workers = 1,
    runner: Runner = None,
    beam_options: BeamOptions = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a dataset as a LeRobotDataset.

    The result can be opened with LeRobot and converted with 'oxe convert'.

    \b
    Example: oxe export lerobot bridge --video h264 --out bridge_lerobot
    """
    from pipelines.beam.engine import Engine
    from pipelines.export.plan import ExportOptions

    options = ExportOptions(
        format="lerobot", version=version, view=view, fps=fps, video=video, crf=crf, gop=gop, images=images
    )
    engine = Engine(workers=workers, runner=runner, options=beam_words(beam_options))
    _export(directory, out, options, engine=engine, overwrite=overwrite, as_json=as_json)


def _export(
    directory: str, out: Path, options: "ExportOptions", *, engine: "Engine", overwrite: bool, as_json: bool
) -> None:
    """Export a dataset and print a summary."""
    from pipelines.export.run import export
    from schemas.store.dataset import open_dataset

    dataset = open_dataset(directory)
    with progress(len(dataset)) as bar:
        report = export(dataset, out, options, engine=engine, overwrite=overwrite, progress=bar)
    (print_json if as_json else _show_report)(report.to_json())
    if report.without_steps:
        say(f"left out: {report.without_steps} episodes, because the view masks all their steps", err=True)
    for column, why in report.left_out.items():
        say(f"left out: {column}: {why}", err=True)
    print_notes(report.notes)


def _show_report(report: Mapping[str, Any]) -> None:
    """Print what was exported, and how each camera is stored."""
    say(f"{report['out']}: {report['episodes']} episodes, {report['steps']} steps in {file_count(report['files'])}")
    for key, camera in report["cameras"].items():
        how = f"{camera['as']}, PSNR of each frame at least {camera['psnr']} dB" if camera["psnr"] else camera["as"]
        say(f"{key}: {how}{': ' + camera['why'] if camera['why'] else ''}")
