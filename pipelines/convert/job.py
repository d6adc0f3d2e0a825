"""A conversion as plain data that any worker can open, and the conversion of one shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.beam.shards import with_retries
from pipelines.convert.binding import Binding, bind
from pipelines.convert.ledger import Ledger
from pipelines.convert.parquet import ParquetShard
from pipelines.convert.publish import episodes_schema
from pipelines.convert.records import Options, ShardRecord
from pipelines.readers.reader import Reader, ShardRef
from pipelines.readers.registry import open_source
from schemas.declarations import spec
from schemas.errors import SourceError, TooManyQuarantinedError, UsageError
from schemas.files.folder import open_folder
from schemas.source import Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob:
    """A picklable description of a conversion."""

    declaration: dict[str, Any]  # DatasetSpec.to_json
    source: str  # a URI or an absolute path
    out: str  # a URI or an absolute path
    options: Options
    max_quarantine: int | None = None
    published: Mapping[str, Mapping[str, Any]] | None = None  # for a repair: the manifest's entries by shard

    def open(self) -> "ConversionWorker":
        """Open the source and the output on this worker."""
        declared = spec.from_json(self.declaration, where="job")
        reader = open_source(self.source, declared.source, follow_links=self.options.follow_links)
        binding = bind(declared, reader.fields, keep_raw=self.options.keep_raw, materialize=self.options.materialize)
        ledger = Ledger(open_folder(self.out, for_writing=True), episodes_schema(binding.layout))
        return ConversionWorker(job=self, reader=reader, binding=binding, ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionWorker:
    """A conversion, opened on a worker."""

    job: ConversionJob
    reader: Reader
    binding: Binding
    ledger: Ledger = field(repr=False)
    counted: set[str] = field(default_factory=set, repr=False)  # shards whose records are in `quarantined`
    quarantined: list[Unreadable] = field(default_factory=list, repr=False)

    def shard(self, ref: ShardRef) -> str | None:
        """Convert one shard and write its record; returns the error message, or None."""

        def work() -> None:
            record = convert_shard(self, ref)
            self.ledger.write(ref.name, record)
            self._check_all_workers(ref.name, record)

        return with_retries(self.ledger, ref.name, work)

    def _check_all_workers(self, name: str, record: ShardRecord) -> None:
        """Raise TooManyQuarantinedError if all workers together have quarantined more episodes than allowed.

        Each worker writes its own record before it counts the records of all workers. The worker that writes last
        therefore counts every record.
        """
        if self.job.max_quarantine is None or not record.quarantined:
            return
        others = self.ledger.read(self.ledger.finished() - self.counted - {name})
        self.counted.update(others, [name])
        for other in sorted(others):
            self.quarantined.extend(others[other].quarantined)
        self.quarantined.extend(record.quarantined)
        check_allowance(self.quarantined, self.job.max_quarantine)


def convert_shard(worker: ConversionWorker, ref: ShardRef) -> ShardRecord:
    """Read, standardize and write one shard; each episode is kept, dropped or quarantined.

    In a repair, files that differ from those that were published are not written.
    """
    out, entries = worker.ledger.out, worker.job.published
    shard = ParquetShard(out, ref.name, worker.binding)
    dropped: list[tuple[int, str]] = []
    quarantined: list[Unreadable] = []
    try:
        for raw in worker.reader.read(ref, worker.binding.columns):
            try:
                if isinstance(raw, Unreadable):
                    quarantined.append(raw)
                elif reason := worker.binding.drop_reason(raw):
                    dropped.append((raw.index, reason))
                else:
                    shard.add(worker.binding.episode(raw))
            except SourceError as error:
                quarantined.append(Unreadable.of(error, index=raw.index, split=raw.split, file=raw.file))
            check_allowance([*worker.quarantined, *quarantined], worker.job.max_quarantine)
        record = shard.finish(ref.split, published=None if entries is None else entries.get(ref.name, {}))
    except OSError as error:
        raise UsageError(f"{out.uri}: cannot be written ({error})") from error
    finally:
        shard.discard()
    return ShardRecord(
        file=record, episodes=tuple(shard.episodes), dropped=tuple(dropped), quarantined=tuple(quarantined)
    )


def check_allowance(quarantined: Sequence[Unreadable], allowed: int | None) -> None:
    """Raise TooManyQuarantinedError if more than `allowed` episodes are quarantined; the message names the last."""
    if allowed is not None and len(quarantined) > allowed:
        last = quarantined[-1]
        where = f"{last.file}: byte {last.offset}" if last.offset is not None else last.file
        count = f"{len(quarantined)} episodes cannot be read, {allowed} are allowed"
        raise TooManyQuarantinedError(f"{count}; episode {last.index}: {where}: {last.detail}")
