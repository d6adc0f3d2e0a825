"""Look at the groups and arrays of trees such as HDF5 files and Zarr stores, and judge which groups may be episodes.

Two groups look the same if their arrays have the same names, the same kinds of values and as many axes. Groups that
look the same are episodes if their lengths differ, or if their names contain numbers. They are parts of one episode,
such as two cameras, if other arrays have their length, or if each of several files has one length of its own.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol, TypeAlias

from pipelines.readers.patterns import below, name_pattern

MAX_DEPTH, MAX_NAMES, MAX_PARENTS = 4, 100, 30  # levels; names per group and groups per level that are looked at
MAX_ARRAYS = 500  # arrays of a group that may be an episode
MAX_VECTOR = 16  # numbers in a vector of statistics
NONE, WORDS, NUMBERED, LENGTHS = 0, 1, 2, 3  # evidence that groups are episodes, from none to strong
Looks: TypeAlias = frozenset[tuple[str, str, int]]  # path below the group, kind of values, number of axes


@dataclass(frozen=True, slots=True)
class ArrayHead:
    """What the header of an array says."""

    kind: str  # NumPy's letter for a kind of dtype; S for all texts and bytes
    shape: tuple[int, ...]


class Tree(Protocol):
    """The groups and arrays of a file; paths are relative to its root, whose path is empty."""

    def names(self, group: str) -> Sequence[str]:
        """Return the names in a group."""

    def head(self, path: str) -> ArrayHead | None:
        """Return the header of an array; None for a group."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group that may be an episode."""

    file: str
    path: str
    looks: Looks
    length: int  # rows that more than half of its arrays have; 0 if there is no such number
    size: int  # numbers in its arrays
    is_wide: bool  # an array has several numbers per row

    @property
    def name(self) -> str:
        """The last word of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Level:
    """Groups that look the same and are equally deep in their files."""

    groups: tuple[Group, ...]

    @cached_property
    def by_parent(self) -> Mapping[tuple[str, str], list[Group]]:
        """The groups that are side by side in one file."""
        together = defaultdict(list)
        for group in self.groups:
            together[group.file, group.path.rpartition("/")[0]].append(group)
        return together

    @cached_property
    def is_numbered(self) -> bool:
        """Whether every name contains a digit."""
        return all(any(letter.isdigit() for letter in group.name) for group in self.groups)

    @cached_property
    def has_lengths(self) -> bool:
        """Whether groups that are side by side differ in length; one row more does not count."""
        lengths = [[group.length for group in groups] for groups in self.by_parent.values()]
        return any(max(rows) - min(rows) > 1 for rows in lengths)

    @cached_property
    def size(self) -> int:
        """Numbers in all groups."""
        return sum(group.size for group in self.groups)

    @cached_property
    def pattern(self) -> str:
        """The pattern of the groups' paths."""
        words = zip(*(group.path.split("/") for group in self.groups), strict=True)
        *above, last = [sorted({*names}) for names in words]
        return "/".join([*(name_pattern(names) for names in above), name_pattern(last, is_last=True)])

    @cached_property
    def places(self) -> frozenset[tuple[str, str]]:
        """The file and the path of each group."""
        return frozenset((group.file, group.path) for group in self.groups)

    def contains(self, file: str, path: str) -> bool:
        """Whether a path is below one of the groups."""
        words = path.split("/")
        depth = self.groups[0].path.count("/") + 1
        return len(words) > depth and (file, "/".join(words[:depth])) in self.places

    def is_above(self, other: "Level") -> bool:
        """Whether the groups contain those of another level."""
        return all(self.contains(*place) for place in other.places)


class Survey:
    """The first groups of every level of some files, from their headers."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        """Look at the groups and arrays of each file, by its name."""
        self.trees = trees
        self.arrays: dict[tuple[str, str], ArrayHead] = {}
        self.groups: list[Group] = []
        for file, tree in trees.items():
            self.arrays |= {(file, name): head for name in tree.names("")[:MAX_NAMES] if (head := tree.head(name))}
            parents = [""]
            for _ in range(MAX_DEPTH):
                paths = [below(parent, name) for parent in parents for name in tree.names(parent)[:MAX_NAMES]]
                groups = [path for path in paths if tree.head(path) is None]
                self.groups += filter(None, (self._group(file, path) for path in groups))
                parents = groups[:MAX_PARENTS]

    def _group(self, file: str, path: str) -> Group | None:
        heads = arrays_below(self.trees[file], path)
        if heads is None:
            return None
        self.arrays |= {(file, below(path, inner)): head for inner, head in heads.items()}
        rows = Counter(head.shape[0] for head in heads.values() if head.shape and head.shape[0] > 1)
        length, count = rows.most_common(1)[0] if rows else (0, 0)
        return Group(
            file=file,
            path=path,
            looks=looks_of(heads),
            length=length if 2 * count > rows.total() else 0,
            size=_size(heads.values()),
            is_wide=any(len(head.shape) > 1 and head.shape[0] == length for head in heads.values()),
        )

    @cached_property
    def levels(self) -> list[tuple[int, Level]]:
        """The groups that may be episodes, each with the evidence for that; without those that certainly are not."""
        alike = defaultdict(list)
        for group in sorted(self.groups, key=lambda group: not group.length):  # those with rows first
            alike[group.path.count("/"), group.looks].append(group)
        levels = [Level(tuple(groups)) for groups in alike.values() if groups[0].length]
        judged = [(self._evidence(level, levels), level) for level in levels]
        return [(evidence, level) for evidence, level in judged if evidence]

    def is_shell(self, level: Level, inner: Level) -> bool:
        """Whether all arrays with rows in the groups of a level are in those of a level below it."""
        rows = (place for place, head in self.arrays.items() if head.shape and head.shape[0] > 1)
        return level.is_above(inner) and all(inner.contains(*place) for place in rows if level.contains(*place))

    def numbered(self) -> str | None:
        """Return the pattern of numbered groups of unclear length, if there is nothing else with rows; or None."""
        pattern, places = None, set[tuple[str, str]]()
        for depth in range(2):
            groups = [group for group in self.groups if group.path.count("/") == depth]
            if groups and all(group.path[-1].isdigit() and not group.length for group in groups):
                pattern, places = Level(tuple(groups)).pattern, {(group.file, group.path) for group in groups}
                break
        words = [(file, path.split("/"), head) for (file, path), head in self.arrays.items() if sum(head.shape) > 1]
        outside = any((file, "/".join(word[: depth + 1])) not in places for file, word, _ in words)
        return None if outside else pattern

    def _evidence(self, level: Level, levels: Sequence[Level]) -> int:
        groups = level.groups
        names = {file: {g.path for g in groups if g.file == file} for file in {g.file for g in groups}}
        differ = len({frozenset(paths) for paths in names.values()}) > 1  # the names differ from file to file
        if not level.is_numbered and not differ and max(map(len, level.by_parent.values())) == 1:
            return NONE
        rivals = [o for o in levels if o is not level and (o.is_numbered or o.has_lengths) and not o.is_above(level)]
        rivals = [other for other in rivals if not level.is_above(other)]
        outside = {
            place: head
            for place, head in self.arrays.items()
            if not level.contains(*place) and not any(rival.contains(*place) for rival in rivals)
        }
        if level.size < _size(outside.values()):
            return NONE
        if level.has_lengths:
            return LENGTHS
        lengths = {(group.file, group.length) for group in groups}
        steps = [(file, head.shape[0]) for (file, _), head in outside.items() if _may_have_steps(head)]
        if lengths & {(file, count + more) for file, count in steps for more in (-1, 0, 1)}:
            return NONE
        several = max(map(len, level.by_parent.values())) > 1
        if len(names) > 1 and several and not differ and len({length for _, length in lengths}) > 1:
            return NONE
        return NUMBERED if level.is_numbered or differ else WORDS


def arrays_below(tree: Tree, group: str) -> dict[str, ArrayHead] | None:
    """Return the headers of a group's arrays by their paths below it; None if there are too many for an episode."""
    heads: dict[str, ArrayHead] = {}
    inner, visited = [""], 0
    while inner:
        prefix = inner.pop()
        for name in tree.names(below(group, prefix)):
            visited += 1
            if visited > MAX_ARRAYS:
                return None
            path = below(prefix, name)
            head = tree.head(below(group, path))
            if head is None:
                inner.append(path)
            else:
                heads[path] = head
    return heads


def looks_of(heads: Mapping[str, ArrayHead]) -> Looks:
    """Return what a group looks like."""
    return frozenset((path, head.kind, len(head.shape)) for path, head in heads.items())


def _may_have_steps(head: ArrayHead) -> bool:
    """Whether the first axis may be the step; a short vector is rather a statistic."""
    return len(head.shape) > 1 or sum(head.shape) > MAX_VECTOR


def _size(heads: Collection[ArrayHead]) -> int:
    return sum(prod(head.shape) for head in heads)
