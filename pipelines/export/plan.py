"""The options of an export, the plan of its shards, and its report. A shard contains episodes of one split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipelines.statistics.numbers import kept_steps
from schemas.episode import Episode
from schemas.errors import DatasetError
from schemas.store.dataset import Dataset

MIN_BYTES, MAX_BYTES = 32 << 20, 100 << 20  # target size of a shard, in bytes
UNCHANGED = "unchanged"
MIN_SHARDS = 8  # aimed at, unless the shards would be smaller than MIN_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options that determine an export: the same options and dataset give the same export."""

    format: str
    version: str
    view: str | None = None
    fps: float | None = None  # required if the dataset does not declare its control rate
    video: str = "none"
    crf: int = 30
    gop: int = 2
    images: str = UNCHANGED  # or "png": re-encode the images that the format's readers cannot open

    def to_json(self) -> dict[str, Any]:
        """Return the options by name; `images` only if it differs from its default, as exports before it have it."""
        options = asdict(self)
        return options if self.images != UNCHANGED else {k: v for k, v in options.items() if k != "images"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRef:
    """One shard: the episodes that are written together. Picklable."""

    split: str
    number: int  # number of the shard in the export (LeRobot) or in its split (RLDS)
    of: int  # number of shards in the export or in the split
    positions: tuple[int, ...]  # positions of the episodes in the dataset
    lengths: tuple[int, ...]  # exported steps of each episode
    first_episode: int = 0  # episodes in the shards before it
    first_step: int = 0  # steps in the shards before it
    size: int = 0  # bytes to read

    @property
    def name(self) -> str:
        """Name of the shard's record, such as `train-00000-of-00002`."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote."""

    out: str
    episodes: int
    steps: int
    files: int
    without_steps: int  # episodes left out because the view masks all their steps
    view: str | None
    cameras: Mapping[str, Any] = field(default_factory=dict)  # key in the export -> how the camera is stored
    left_out: Mapping[str, str] = field(default_factory=dict)  # column of the dataset -> why the format cannot store it
    notes: tuple[str, ...] = ()  # warnings for the user

    def to_json(self) -> dict[str, Any]:
        """Return the object printed by `oxe export --json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def positions_by_file(dataset: Dataset) -> dict[str, list[list[int]]]:
    """Group the positions of episodes by split and by file of the dataset: split -> files -> positions."""
    files: dict[str, list[int]] = {file["path"]: [] for file in dataset.manifest["files"]}
    for i in range(len(dataset)):
        files[dataset.where(i)[0]].append(i)
    splits: dict[str, list[list[int]]] = {}
    for file in dataset.manifest["files"]:
        splits.setdefault(file["split"], []).append(files[file["path"]])
    return splits


def shards_of_files(dataset: Dataset) -> tuple[ExportRef, ...]:
    """Plan one shard for each file of the dataset."""
    sizes = iter([file["bytes"] for file in dataset.manifest["files"]])
    return tuple(
        ExportRef(
            split=split,
            number=number,
            of=len(files),
            positions=tuple(positions),
            lengths=tuple(dataset.where(i)[2] for i in positions),
            size=next(sizes),
        )
        for split, files in positions_by_file(dataset).items()
        for number, positions in enumerate(files)
    )


def shards_of_size(dataset: Dataset, lengths: Sequence[int], *, longest: float) -> tuple[ExportRef, ...]:
    """Plan shards of about the same size in bytes. A shard has at most `longest` steps, unless one episode has more.

    `lengths` has the number of exported steps of each episode; episodes without steps are left out. The same dataset
    and lengths always give the same plan.
    """
    per_row = {file["path"]: file["bytes"] / max(1, file["rows"]) for file in dataset.manifest["files"]}
    sizes = [round(per_row[path] * rows) for path, _, rows in (dataset.where(i) for i in range(len(dataset)))]
    target = min(MAX_BYTES, max(MIN_BYTES, sum(sizes) // MIN_SHARDS))
    groups: list[tuple[str, list[int]]] = []
    for split, files in positions_by_file(dataset).items():
        exported = [i for positions in files for i in positions if lengths[i]]
        groups += [(split, group) for group in _groups(exported, sizes, lengths, target=target, longest=longest)]
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


def _groups(
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
    """Count the exported steps of each episode; with a view, reads the columns from which its mask is computed."""
    counts = kept_steps(dataset, view) if view and dataset.manifest["steps"] else {}
    locations = [dataset.where(i) for i in range(len(dataset))]
    return [counts[path, row] if counts and length else length for path, row, length in locations]


def read_verified(dataset: Dataset, i: int, view: str | None) -> Episode:
    """Read an episode, check its content hash and apply the view.

    If `view` is None, the stored episode is returned. Raises DatasetError if the episode is damaged.
    """
    stored = dataset.episode(i)
    if stored.content_hash() != dataset.content_hash(i):
        raise DatasetError(f"{dataset.uri}: episode {i} is damaged; run 'oxe verify' for details")
    return dataset.view(view).apply(stored) if view else stored


def in_order_of_steps(episode: Episode) -> Episode:
    """Sort the instructions by the first step that has them; instructions that no step has come last.

    A reader of the export returns them in this order.
    """
    if episode.instruction_index is None:
        return episode
    steps = dict.fromkeys(episode.instruction_index.tolist())
    order = [*steps, *(i for i in range(len(episode.instructions)) if i not in steps)]
    place = {old: new for new, old in enumerate(order)}
    index = episode.instruction_index.copy()
    for new, old in enumerate(episode.instruction_index.tolist()):
        index[new] = place[old]
    return replace(episode, instructions=tuple(episode.instructions[i] for i in order), instruction_index=index)
