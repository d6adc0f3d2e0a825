"""`verify` of an export: it is read back through its own declaration and compared with the dataset it was made from.

Numbers, texts, counts and image bytes are equal. A frame of a video is as near to its source as the export's record
says; and no frame beside its own is four times nearer to it (6 dB), by which frames out of place are known.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from pipelines.beam.progress import Progress, silent
from pipelines.convert.binding import Binding, bind
from pipelines.export.ledger import RECORD, RUNS, cannot_compare, read_record
from pipelines.export.plan import ExportOptions, ExportRef, checked
from pipelines.export.run import Target, identity_of, opened
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from pipelines.verify import Verification, catch_damage, compare
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode
from schemas.errors import OxeError, SourceError, UsageError
from schemas.files.folder import LocalFolder
from schemas.source import Unreadable
from schemas.store.dataset import Dataset, open_dataset


def verify_export(out: Path, *, source: str | None = None, progress: Progress = silent) -> Verification:
    """Compare an export with its dataset: the one given, or the one where it was when the export was made."""
    folder = LocalFolder(out)
    record = read_record(folder)
    if record is None:
        raise UsageError(f"{out}: no {RECORD}: not an export, or it did not finish")
    dataset = _dataset(folder, source)
    target = opened(dataset, folder, ExportOptions(**record["identity"]["asked"]))
    found = Verification(source="compared", files=record["report"]["files"])
    identity = identity_of(dataset, target.asked)
    if identity != record["identity"]:
        other = f"made from another content, or another view, than {dataset.uri} has now"
        found.differs(f"{RECORD}: {cannot_compare(record['identity'], identity) or other}")
    refs = target.refs()
    with catch_damage("the export", found):
        _check_episodes(target, refs, found, progress=progress)
    with catch_damage("the export", found):
        target.check(record, found)
    return found


def _dataset(folder: LocalFolder, source: str | None) -> Dataset:
    try:
        lines = folder.read_many([RUNS]).get(RUNS, b"").decode().splitlines()
        uri = source or str(json.loads(lines[-1])["source"])
        return open_dataset(uri)
    except (OxeError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{folder.uri}: the dataset it was made from is not there ({error}); give --source") from error


def _check_episodes(target: Target, refs: tuple[ExportRef, ...], out: Verification, *, progress: Progress) -> None:
    """Compare episode by episode, in the order in which the export has them."""
    spec = catalog.dataset(str(target.out.root / catalog.DECLARATION))
    reader = open_source(target.out.uri, spec.source)
    skipped = set(target.videos)
    fields = [field for field in reader.fields if field.path not in skipped]
    binding = bind(_without_cameras(spec, skipped), fields)
    numbered = enumerate((ref.split, i) for ref in refs for i, n in zip(ref.positions, ref.lengths, strict=True) if n)
    for there, read in zip_longest(numbered, _read(reader, binding, out)):
        if there is None:
            out.differs("the export has more episodes than the dataset")
            return
        if read is None:
            out.differs(f"episode {there[0]}: in the dataset, not in the export, or unreadable there")
        else:
            number, (split, i) = there
            wanted = target.read_back(checked(target.dataset, i, target.asked.view), binding)
            compare(target.comparable(read), replace(wanted, index=number, split=split), out)
            _count(read, out)
        progress(1, 0)


def _without_cameras(spec: DatasetSpec, skipped: set[str]) -> DatasetSpec:
    cameras = {role: camera for role, camera in spec.cameras.items() if camera.key not in skipped}
    return spec.model_copy(update={"cameras": cameras})


def _read(reader: Reader, binding: Binding, out: Verification) -> Iterator[Episode | None]:
    """Read the export's episodes; one that cannot be read is a difference, and None."""
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
