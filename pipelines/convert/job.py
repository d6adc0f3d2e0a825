"""One conversion as plain data that any worker can open, and the work on one shard."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.beam.shards import attempted
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
class Job:
    """What to convert, from where, to where; picklable."""

    declaration: dict[str, Any]  # DatasetSpec.to_json
    source: str  # a URI, or a path that is the same from any working directory
    out: str  # likewise
    options: Options
    max_quarantine: int | None = None

    def open(self) -> "Work":
        """Open source and output on this worker."""
        declared = spec.from_json(self.declaration, where="job")
        reader = open_source(self.source, declared.source)
        binding = bind(declared, reader.fields, keep_raw=self.options.keep_raw, materialize=self.options.materialize)
        ledger = Ledger(open_folder(self.out, for_writing=True), episodes_schema(binding.layout))
        return Work(job=self, reader=reader, binding=binding, ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An opened job."""

    job: Job
    reader: Reader
    binding: Binding
    ledger: Ledger = field(repr=False)
    counted: set[str] = field(default_factory=set, repr=False)  # finished shards whose unreadable episodes it knows
    unreadable: list[Unreadable] = field(default_factory=list, repr=False)  # these episodes

    def shard(self, ref: ShardRef) -> str | None:
        """Convert one shard and enter it in the ledger; say what went wrong, or None."""

        def work() -> None:
            record = convert_shard(self, ref)
            self.ledger.write(ref.name, record)
            self._check_all_workers(ref.name, record)

        return attempted(self.ledger, ref.name, work)

    def _check_all_workers(self, name: str, record: ShardRecord) -> None:
        """Refuse more quarantined episodes than allowed, counting those of every worker.

        A worker's own record is there before it counts, so that whichever shard is finished last sees all of them.
        """
        if self.job.max_quarantine is None or not record.quarantined:
            return
        others = self.ledger.read(self.ledger.finished() - self.counted - {name})
        self.counted.update(others, [name])
        for other in sorted(others):
            self.unreadable.extend(others[other].quarantined)
        self.unreadable.extend(record.quarantined)
        check_allowance(self.unreadable, self.job.max_quarantine)


def convert_shard(work: Work, ref: ShardRef) -> ShardRecord:
    """Read, standardize and write one shard; every episode of it is kept, dropped or quarantined."""
    out = work.ledger.out
    shard = ParquetShard(out, ref.name, work.binding)
    dropped: list[tuple[int, str]] = []
    quarantined: list[Unreadable] = []
    try:
        for raw in work.reader.read(ref, work.binding.columns):
            try:
                if isinstance(raw, Unreadable):
                    quarantined.append(raw)
                elif reason := work.binding.why_drop(raw):
                    dropped.append((raw.index, reason))
                else:
                    shard.add(work.binding.episode(raw))
            except SourceError as error:
                quarantined.append(Unreadable.of(error, index=raw.index, split=raw.split, file=raw.file))
            check_allowance([*work.unreadable, *quarantined], work.job.max_quarantine)
        record = shard.finish(ref.split)
    except OSError as error:
        raise UsageError(f"{out.uri}: cannot be written ({error})") from error
    finally:
        shard.discard()
    return ShardRecord(
        file=record, episodes=tuple(shard.episodes), dropped=tuple(dropped), quarantined=tuple(quarantined)
    )


def check_allowance(quarantined: Sequence[Unreadable], allowed: int | None) -> None:
    """Refuse more quarantined episodes than allowed, naming the last one."""
    if allowed is not None and len(quarantined) > allowed:
        last = quarantined[-1]
        where = f"{last.file}: byte {last.offset}" if last.offset is not None else last.file
        count = f"{len(quarantined)} episodes cannot be read, {allowed} are allowed"
        raise TooManyQuarantinedError(f"{count}; episode {last.index}: {where}: {last.detail}")
