"""What an export is, its shards (some episodes of one split each), and what it says of itself in the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipelines.statistics.numbers import kept_steps
from schemas.episode import Episode
from schemas.errors import DatasetError
from schemas.store.dataset import Dataset

LARGE, SMALL, PARTS = 100 << 20, 32 << 20, 8  # bytes of a shard at most, at least if there are so many; shards at least


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What an export is; two of the same dataset that ask for the same are the same."""

    format: str
    version: str
    view: str | None = None
    fps: float | None = None  # where the dataset does not know its control rate
    video: str = "none"
    crf: int = 30
    gop: int = 2

    def to_json(self) -> dict[str, Any]:
        """Give its fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRef:
    """Some episodes that become files together; picklable."""

    split: str
    number: int  # within the export, or the split: what its files are numbered by
    of: int
    positions: tuple[int, ...]  # in the dataset
    lengths: tuple[int, ...]  # steps that are exported
    first_episode: int = 0
    first_step: int = 0
    size: int = 0  # bytes that are read

    @property
    def name(self) -> str:
        """Name it."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"

    @property
    def episodes(self) -> int:
        """Count its episodes."""
        return len(self.positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written."""

    out: str
    episodes: int
    steps: int
    files: int
    without_steps: int  # episodes left out because the view masks all their steps
    view: str | None
    cameras: Mapping[str, Any] = field(default_factory=dict)  # key in the export -> how it is kept
    left_out: Mapping[str, str] = field(default_factory=dict)  # column of the dataset -> why the format cannot hold it
    notes: tuple[str, ...] = ()  # what the user should know before using it

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe export --json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def by_file(dataset: Dataset) -> dict[str, list[list[int]]]:
    """Group episodes as the dataset's files do: split -> files -> positions."""
    files: dict[str, list[int]] = {file["path"]: [] for file in dataset.manifest["files"]}
    for i in range(len(dataset)):
        files[dataset.where(i)[0]].append(i)
    splits: dict[str, list[list[int]]] = {}
    for file in dataset.manifest["files"]:
        splits.setdefault(file["split"], []).append(files[file["path"]])
    return splits


def shards_of_files(dataset: Dataset) -> tuple[ExportRef, ...]:
    """Make a shard of each of the dataset's files."""
    sizes = [file["bytes"] for file in dataset.manifest["files"]]
    sized = iter(sizes)
    return tuple(
        ExportRef(
            split=split,
            number=number,
            of=len(files),
            positions=tuple(positions),
            lengths=tuple(dataset.where(i)[2] for i in positions),
            size=next(sized),
        )
        for split, files in by_file(dataset).items()
        for number, positions in enumerate(files)
    )


def shards_of_size(dataset: Dataset, lengths: Sequence[int], *, longest: float) -> tuple[ExportRef, ...]:
    """Group episodes by bytes, and so that no shard has more than `longest` steps; `lengths` are what is exported.

    Episodes without steps are left out. The plan depends on dataset and lengths alone.
    """
    per_row = {file["path"]: file["bytes"] / max(1, file["rows"]) for file in dataset.manifest["files"]}
    sizes = [round(per_row[path] * rows) for path, _, rows in (dataset.where(i) for i in range(len(dataset)))]
    target = min(LARGE, max(SMALL, sum(sizes) // PARTS))
    groups: list[tuple[str, list[int]]] = []
    for split, files in by_file(dataset).items():
        kept = [i for positions in files for i in positions if lengths[i]]
        groups += [(split, group) for group in _grouped(kept, sizes, lengths, target=target, longest=longest)]
    refs, episode, step = list[ExportRef](), 0, 0
    for number, (split, positions) in enumerate(groups):
        refs.append(
            ExportRef(
                split=split,
                number=number,
                of=len(groups),
                positions=tuple(positions),
                lengths=tuple(lengths[i] for i in positions),
                first_episode=episode,
                first_step=step,
                size=sum(sizes[i] for i in positions),
            )
        )
        episode, step = episode + len(positions), step + sum(refs[-1].lengths)
    return tuple(refs)


def _grouped(
    positions: Sequence[int], sizes: Sequence[int], lengths: Sequence[int], *, target: int, longest: float
) -> Iterator[list[int]]:
    group, size, steps = list[int](), 0, 0
    for i in positions:
        if group and (size + sizes[i] > target or steps + lengths[i] > longest):
            yield group
            group, size, steps = [], 0, 0
        group.append(i)
        size, steps = size + sizes[i], steps + lengths[i]
    if group:
        yield group


def exported_lengths(dataset: Dataset, view: str | None) -> list[int]:
    """Count the steps of each episode that are exported; with a view, its columns are read for that."""
    kept = kept_steps(dataset, view) if view and dataset.manifest["steps"] else {}
    places = [dataset.where(i) for i in range(len(dataset))]
    return [kept[path, row] if kept and length else length for path, row, length in places]


def checked(dataset: Dataset, i: int, view: str | None) -> Episode:
    """Read an episode that is what was stored: damage must not travel on."""
    stored = dataset.episode(i)
    if stored.content_hash() != dataset.content_hash(i):
        raise DatasetError(f"{dataset.uri}: episode {i} is damaged; 'oxe verify' tells more")
    return dataset.view(view).apply(stored) if view else stored


def in_order_of_steps(episode: Episode) -> Episode:
    """Put instructions in the order in which steps have them, as reading them back does; others follow."""
    if episode.instruction_index is None:
        return episode
    steps = dict.fromkeys(episode.instruction_index.tolist())
    order = [*steps, *(i for i in range(len(episode.instructions)) if i not in steps)]
    place = {old: new for new, old in enumerate(order)}
    index = episode.instruction_index.copy()
    for new, old in enumerate(episode.instruction_index.tolist()):
        index[new] = place[old]
    return replace(episode, instructions=tuple(episode.instructions[i] for i in order), instruction_index=index)
