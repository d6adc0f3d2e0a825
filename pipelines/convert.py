"""`convert`: a source and its declaration become one published dataset."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.folders import make_output
from pipelines.progress import Progress, silent
from pipelines.publish import publish
from pipelines.readers.registry import open_source
from pipelines.readers.source import Reader, ShardRef, plan
from pipelines.records import Options, ShardRecord
from pipelines.standardize import Binding, bind
from pipelines.writers.parquet import ParquetShard
from schemas import layout
from schemas.errors import SourceError, UsageError, did_you_mean
from schemas.source import RawEpisode, Unreadable
from schemas.spaces import Space
from schemas.spec import DatasetSpec
from schemas.views import view_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome: counts that balance, and what was left out."""

    out: str
    source: int
    kept: int
    dropped: dict[str, int]
    quarantined: dict[str, int]
    steps: int
    files: int
    seconds: float
    problems: tuple[Unreadable, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe convert --json`."""
        return {
            "out": self.out,
            "episodes": {
                "source": self.source,
                "kept": self.kept,
                "dropped": self.dropped,
                "quarantined": self.quarantined,
            },
            "steps": self.steps,
            "files": self.files,
            "seconds": round(self.seconds, 3),
        }


def convert(
    spec: DatasetSpec,
    out: Path,
    *,
    source: str | None = None,
    options: Options | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert `source` (by default the one the declaration names) into a dataset at `out`.

    Raises SpecError where the declaration does not fit, SourceError where the source as a whole cannot be read, and
    UsageError where `out` cannot be written. Single episodes that cannot be read are quarantined and counted.
    """
    began = time.monotonic()
    options = options or Options()
    reader, binding, refs = _planned(spec, source, options)
    folders = (layout.DATA, layout.INDEX, layout.META)
    make_output(out, source=reader.uri, ours=folders, holds=layout.OURS, overwrite=overwrite)
    for name in folders:
        (out / name).mkdir()
    records = []
    for ref in refs:
        records.append(convert_shard(reader, ref, binding=binding, out=out))
        progress(ref.episodes, sum(part.size or 0 for part in ref.parts))
    manifest = publish(out, reader, binding=binding, options=options, records=records)
    problems = tuple(problem for record in records for problem in record.quarantined)
    balance = manifest["balance"]
    report = Report(
        out=str(out),
        **balance,
        steps=manifest["steps"],
        files=len(manifest["files"]),
        seconds=time.monotonic() - began,
        problems=problems,
    )
    _log_run(out, reader.uri, report)
    return report


def dry_run(spec: DatasetSpec, *, source: str | None = None, options: Options | None = None) -> dict[str, Any]:
    """Check that a declaration fits its source, and say what `convert` would write."""
    _, binding, refs = _planned(spec, source, options or Options())
    columns = binding.layout
    return {
        "dataset": spec.name,
        "episodes": sum(ref.episodes for ref in refs),
        "bytes": sum(part.size or 0 for ref in refs for part in ref.parts),
        "files": len(refs),
        "missing_files": [part.name for ref in refs for part in ref.parts if part.size is None],
        "action": _described(columns.action),
        "state": _described(columns.state) if columns.state else [],
        "cameras": [f"{camera.leaf} ({camera.role})" if camera.role else camera.leaf for camera in columns.cameras],
        "views": list(view_names(spec)),
        "columns": columns.schema().names,
    }


def _described(space: Space) -> list[str]:
    return [f"{dim.name} [{dim.unit}, {dim.mode}]" for dim in space.dims]


def _planned(spec: DatasetSpec, source: str | None, options: Options) -> tuple[Reader, Binding, tuple[ShardRef, ...]]:
    uri = source or spec.source.uri
    if uri is None:
        raise UsageError(f"{spec.name}: its declaration names no source; give --source")
    if len(set(options.materialize)) < len(options.materialize):
        raise UsageError(f"--materialize names a view twice: {', '.join(options.materialize)}")
    reader = open_source(uri, spec.source.format)
    if options.split is not None and options.split not in reader.files():
        raise UsageError(f"{uri}: no split '{options.split}'{did_you_mean(options.split, reader.files())}")
    binding = bind(spec, reader.fields, keep_raw=options.keep_raw, materialize=options.materialize)
    return reader, binding, plan(reader, split=options.split, limit=options.limit)


def convert_shard(reader: Reader, ref: ShardRef, *, binding: Binding, out: Path) -> ShardRecord:
    """Read, standardize and write one shard; every episode of it is kept, dropped or quarantined."""
    shard = ParquetShard(out, ref.name, binding)
    dropped: list[tuple[int, str]] = []
    quarantined: list[Unreadable] = []
    try:
        for raw in reader.read(ref, binding.columns):
            if isinstance(raw, Unreadable):
                quarantined.append(raw)
                continue
            try:
                reason = why_drop(raw)
                if reason:
                    dropped.append((raw.index, reason))
                else:
                    shard.add(binding.episode(raw))
            except SourceError as error:
                quarantined.append(Unreadable.of(error, index=raw.index, split=raw.split, file=raw.file))
        record = shard.finish(ref.split)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error
    finally:
        shard.discard()
    return ShardRecord(
        file=record, episodes=tuple(shard.episodes), dropped=tuple(dropped), quarantined=tuple(quarantined)
    )


def why_drop(raw: RawEpisode) -> str | None:
    """Say why an episode is left out although it can be read, or None to keep it."""
    return None if raw.n_steps() else "zero_steps"


def _log_run(out: Path, uri: str, report: Report) -> None:
    """Append this run, with everything that differs from run to run, to the log."""
    run = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "convert",
        "source": uri if "://" in uri else str(Path(uri).resolve()),
        "oxe_tools": version("oxe-tools"),
        **report.to_json(),
    }
    with (out / layout.RUNS).open("a") as file:
        file.write(json.dumps(run) + "\n")
