"""`Conversion`: a planned conversion."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.beam.engine import Engine
from pipelines.beam.progress import Progress
from pipelines.convert.binding import Binding, bind
from pipelines.convert.job import ConversionJob
from pipelines.convert.ledger import Ledger, published_identity
from pipelines.convert.publish import identity_of
from pipelines.convert.records import Options
from pipelines.readers.history import History
from pipelines.readers.reader import Reader, ShardRef
from pipelines.readers.registry import open_source
from schemas.declarations.spec import DatasetSpec
from schemas.errors import UsageError, did_you_mean
from schemas.files.folder import Folder, absolute


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A planned conversion: its source, its identity, and its shards."""

    reader: Reader
    binding: Binding
    identity: dict[str, Any]
    stored: dict[str, Any] | None  # identity of the dataset that already existed when this was planned
    published: tuple[ShardRef, ...]  # the shards that this dataset has
    refs: tuple[ShardRef, ...]  # the shards to convert in this run

    @classmethod
    def of(
        cls, spec: DatasetSpec, out: Folder | None, *, source: str | None, options: Options, overwrite: bool = False
    ) -> "Conversion":
        """Open the source and plan the shards that the dataset at `out` does not contain yet."""
        uri = source or spec.source.uri
        if uri is None:
            raise UsageError(f"{spec.name}: the declaration names no source; pass --source")
        if len(set(options.materialize)) < len(options.materialize):
            raise UsageError(f"--materialize: a view is named twice: {', '.join(options.materialize)}")
        reader = open_source(uri, spec.source, follow_links=options.follow_links)
        if options.split is not None and options.split not in reader.files():
            raise UsageError(f"{uri}: no split '{options.split}'{did_you_mean(options.split, reader.files())}")
        binding = bind(spec, reader.fields, keep_raw=options.keep_raw, materialize=options.materialize)
        history = History.of(reader)
        stored = None if out is None or overwrite else published_identity(out)
        past = History.from_json(stored["source"]) if stored else None
        if past and not history.since(past).vanished:  # if files are missing, it is treated as another source
            history = history.after(past)
        planned = history.plan(reader.files(), split=options.split, limit=options.limit)
        return cls(
            reader=reader,
            binding=binding,
            identity=identity_of(binding, reader, options=options, history=history),
            stored=stored,
            published=tuple(ref for refs in planned[: len(past.ends) if past else 0] for ref in refs),
            refs=planned[-1],
        )

    def run(
        self,
        refs: Sequence[ShardRef],
        ledger: Ledger,
        *,
        engine: Engine,
        progress: Progress,
        max_quarantine: int | None = None,
        published: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Convert shards. With `published`, their entries in the manifest, only files that are the same are written."""
        from pipelines.beam.run import run  # noqa: PLC0415 - Beam takes seconds to import

        if short := _space_note(ledger.out, refs):
            progress.warn(short)
        job = ConversionJob(
            declaration=self.binding.spec.to_json(),
            source=absolute(self.reader.uri),
            out=absolute(ledger.out.uri),
            options=Options.from_json(self.identity["options"]),
            max_quarantine=max_quarantine,
            published=published,
        )
        run(job, refs, ledger, engine=engine, progress=progress)


def _space_note(out: Folder, refs: Sequence[ShardRef]) -> str | None:
    """Return a warning if the output of some shards may not fit on the disk, estimated from the size of the source."""
    if out.local is None:
        return None
    needed, free = sum(part.work for ref in refs for part in ref.parts), shutil.disk_usage(out.local).free
    if needed <= free:
        return None
    sizes = f"about {needed / 1e9:.3g} GB are needed, estimated from the source, and {free / 1e9:.3g} GB are free"
    return f"{out.uri}: {sizes}; if the disk is full, the run ends, and the same command continues it"
