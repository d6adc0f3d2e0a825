"""The command `oxe check`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oxe_tools.cli.console import (
    FAILURES,
    BeamOptions,
    Json,
    Runner,
    Workers,
    beam_words,
    fail,
    print_json,
    print_table,
    progress,
    say,
)

if TYPE_CHECKING:
    from pipelines.checks.report import Report

SHOWN = 5  # number of findings of a rule, and of episodes to look at, that are printed without --all


def check(
    directories: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Converted datasets; several are compared for duplicates."),
    ],
    *,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A TOML file with thresholds, severities and accepted findings."),
    ] = None,
    all_frames: Annotated[
        bool, typer.Option("--all-frames", help="Decode every image instead of a sample of each episode.")
    ] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Check again, although nothing has changed since the last check.")
    ] = False,
    all_findings: Annotated[
        bool, typer.Option("--all", help="Print every finding, not only the first of each rule.")
    ] = False,
    workers: Workers = 1,
    runner: Runner = None,
    beam_options: BeamOptions = "",
    as_json: Json = False,
) -> None:
    """Check the data before training on them.

    Rules compare numbers, times, images and instructions with what a good recording looks like, and search for
    duplicates. Exits with 1 if a rule with the severity `error` found something that is not accepted.

    \b
    Example: oxe check bridge
    """
    from pipelines.beam.engine import Engine
    from pipelines.checks.run import check_datasets
    from pipelines.checks.settings import Settings, load
    from schemas.store.dataset import open_dataset

    settings = load(rules) if rules else Settings()
    datasets = [open_dataset(directory) for directory in directories]
    engine = Engine(workers=workers, runner=runner, options=beam_words(beam_options))
    with progress(sum(map(len, datasets))) as bar:
        report = check_datasets(
            datasets, settings=settings, all_frames=all_frames, recompute=recompute, engine=engine, progress=bar
        )
    if as_json:
        print_json(report.to_json())
    else:
        _show(report, every=all_findings)
    if not report.ok:
        errors = sum(report.settings.severity(finding.rule) == "error" for finding in report.findings)
        fail(f"{', '.join(directories)}: {errors} errors", FAILURES)


def _show(report: "Report", *, every: bool) -> None:
    """Print the findings by rule, with how to fix them, and what a person should look at."""
    count = f"{len(report.findings)} finding{'s' * (len(report.findings) != 1)}"
    say(f"{', '.join(report.names)}: {report.episodes} episodes, {count}")
    _show_findings(report, every=every)
    if report.accepted:
        say()
        say(f"{len(report.accepted)} more findings are accepted by the rules file")
    if report.not_assessable:
        say()
        for entry in report.not_assessable:
            say(f"not assessable: {report.names[entry.member]}: {entry.rule}: {entry.why}")
    for name, spaces in report.conventions.items():
        for space, judged in spaces.items():
            say()
            say(f"does the motion agree with the declaration of {name}? {space}:")
            print_table(
                ("aspect", "verdict", "sure", "evidence"),
                ((aspect, one.verdict, f"{one.confidence:.0%}", one.evidence) for aspect, one in judged.items()),
            )
    if report.look_at:
        say()
        say("episodes to look at first, which may be right:")
        for look in report.look_at if every else report.look_at[:SHOWN]:
            say(f"  {report.names[look.member]} episode {look.episode}: {look.reason}")


def _show_findings(report: "Report", *, every: bool) -> None:
    """Print a table of the rules that found something, and their findings."""
    from pipelines.checks.rules import RULES

    counts = Counter(finding.rule for finding in report.findings)
    order = {"error": 0, "warning": 1, "info": 2}
    listed = sorted(counts, key=lambda rule: (order.get(report.settings.severity(rule), 3), rule))
    if listed:
        say()
        rows = ((report.settings.severity(rule), rule, str(counts[rule]), RULES[rule].fix) for rule in listed)
        print_table(("severity", "rule", "findings", "how to fix it"), rows)
    for rule in listed:
        say()
        of_rule = [finding for finding in report.findings if finding.rule == rule]
        for finding in of_rule if every else of_rule[:SHOWN]:
            where = report.names[finding.member] if len(report.names) > 1 or finding.episode < 0 else ""
            where += f" episode {finding.episode}" if finding.episode >= 0 else ""
            say(f"{rule}: {where.strip()}: {finding.message}")
        if not every and len(of_rule) > SHOWN:
            say(f"{rule}: and {len(of_rule) - SHOWN} more; --all prints them")
