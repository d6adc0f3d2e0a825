"""`oxe verify` for exports: read an export back through its own declaration and compare it with its dataset.

Numbers, texts, counts and image bytes must be equal. Each video frame must reach the PSNR in the export's record. A
frame is out of place if its squared error to the source of the previous or next frame is less than a quarter (6 dB)
of the error to its own source.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from pipelines.beam.progress import Progress, silent
from pipelines.convert.binding import Binding, bind
from pipelines.export.ledger import RECORD, RUNS, read_record, why_not_comparable
from pipelines.export.plan import ExportOptions, ExportRef, read_verified
from pipelines.export.run import Target, export_identity, open_target
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from pipelines.verify import Verification, catch_damage, compare
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode
from schemas.errors import OxeError, SourceError, UsageError
from schemas.files.folder import LocalFolder
from schemas.parsing import parse_json
from schemas.source import Unreadable
from schemas.store.dataset import Dataset, open_dataset


def verify_export(
    out: Path, *, source: str | None = None, follow_links: bool = False, progress: Progress = silent
) -> Verification:
    """Compare an export with the dataset from which it was written.

    `source` is the path of the dataset; if None, the path in the log of the export is used. With `follow_links`, links
    that leave the export are followed.
    Raises UsageError if `out` is not a complete export or its dataset cannot be read.
    """
    folder = LocalFolder(out)
    record = read_record(folder)
    if record is None:
        raise UsageError(f"{out}: contains no {RECORD}: not an export, or not finished")
    dataset = _dataset(folder, source)
    target = open_target(dataset, folder, ExportOptions(**record["identity"]["asked"]))
    result = Verification(source="compared", files=record["report"]["files"])
    identity = export_identity(dataset, target.options)
    if identity != record["identity"]:
        changed = f"{dataset.uri} or its view has changed since the export"
        result.differs(f"{RECORD}: {why_not_comparable(record['identity'], identity) or changed}")
    refs = target.refs()
    with catch_damage("the export", result):
        _check_episodes(target, refs, result, follow_links=follow_links, progress=progress)
    with catch_damage("the export", result):
        target.check(record, result)
    return result


def _dataset(folder: LocalFolder, source: str | None) -> Dataset:
    try:
        lines = folder.read_many([RUNS]).get(RUNS, b"").decode().splitlines()
        uri = source or str(parse_json(lines[-1])["source"])
        return open_dataset(uri)
    except (OxeError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{folder.uri}: cannot read the dataset that was exported ({error}); pass --source") from error


def _check_episodes(
    target: Target, refs: tuple[ExportRef, ...], out: Verification, *, follow_links: bool, progress: Progress
) -> None:
    """Compare the episodes one by one, in the order of the export."""
    spec = catalog.dataset(str(target.out.root / catalog.DECLARATION))
    reader = open_source(target.out.uri, spec.source, follow_links=follow_links)
    skipped = set(target.videos)
    fields = [field for field in reader.fields if field.path not in skipped]
    binding = bind(_without_cameras(spec, skipped), fields)
    numbered = enumerate((ref.split, i) for ref in refs for i, n in zip(ref.positions, ref.lengths, strict=True) if n)
    for expected, read in zip_longest(numbered, _read(reader, binding, out)):
        if expected is None:
            out.differs("the export has more episodes than the dataset")
            return
        if read is None:
            out.differs(f"episode {expected[0]}: missing from the export, or unreadable")
        else:
            number, (split, i) = expected
            wanted = target.as_exported(read_verified(target.dataset, i, target.options.view), binding)
            compare(target.comparable(read), replace(wanted, index=number, split=split), out)
            _count(read, out)
        progress(1, 0)


def _without_cameras(spec: DatasetSpec, skipped: set[str]) -> DatasetSpec:
    cameras = {role: camera for role, camera in spec.cameras.items() if camera.key not in skipped}
    return spec.model_copy(update={"cameras": cameras})


def _read(reader: Reader, binding: Binding, out: Verification) -> Iterator[Episode | None]:
    """Read the export's episodes; an unreadable one is reported as a difference and yields None."""
    for ref in plan(reader.files()):
        for raw in reader.read(ref, binding.columns):
            try:
                if isinstance(raw, Unreadable):
                    raise raw.error()
                yield binding.episode(raw)
            except SourceError as error:
                out.differs(f"episode {raw.index}: {error}")
                yield None


def _count(episode: Episode, out: Verification) -> None:
    out.episodes += 1
    out.steps += len(episode)
    out.numbers += sum(getattr(column, "size", 0) for column in episode.columns().values())
    for frames in (*episode.images.values(), *episode.depth.values()):
        out.images += len(frames)
        out.image_bytes += sum(len(frame) for frame in frames if frame is not None)
