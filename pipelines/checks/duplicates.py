"""`duplicate`, `split_leak` and `near_duplicate`: episodes that were recorded once and are in the data twice.

Equal episodes have equal hashes. Almost equal ones are found among the neighbours in a few random projections of their
paths, so that time and memory grow with the number of episodes and not with that of pairs. Then their images decide.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.findings import RuleFinding
from pipelines.checks.images.look import apart
from schemas.source import Array

TABLES, PROJECTIONS, SEED = 8, 4, 0
CELL = 12.0  # width of a cell of a projection, as a multiple of the distance that is searched
NEIGHBOURS = 16  # number of following episodes in a crowded cell with which an episode is compared
BAND = 1  # number of points by which two paths may be shifted against each other
BLOCK = 1 << 14  # number of pairs that are compared at once
PAIR = np.dtype([("first", np.int64), ("second", np.int64), ("distance", np.float64)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A dataset with the signatures of its episodes."""

    about: About
    splits: Sequence[str]  # [E] names
    columns: Mapping[str, Array]  # `episode`, `hash`, `length`, `path`


Look: TypeAlias = Callable[[int, Array], Array]  # (dataset's number, positions [n]) -> how they look, [n, C, K] uint64


def duplicates(datasets: Sequence[Signed], *, between: bool = False, look: Look | None = None) -> Iterator[RuleFinding]:
    """Find equal and almost equal episodes; each pair is one finding.

    With `between`, only pairs of episodes of different datasets are searched. Without `look`, episodes with almost
    equal paths are almost equal, whatever their images show.
    """
    everything = _Everything.of(datasets)
    for first, second in _equal(everything):
        if not between or everything.members[first] != everything.members[second]:
            yield everything.finding(first, second)
    for rows in everything.comparable:
        near = _near(everything, rows, between=between)
        if look is not None:
            near = _alike(everything, near, look)
        best = near[np.lexsort((near["first"], near["distance"], near["second"]))]
        is_first = np.diff(best["second"], prepend=-1) != 0  # each episode is named once at most
        for pair in best[is_first].tolist():
            yield everything.finding(pair[0], pair[1], distance=pair[2])


@dataclass(frozen=True, kw_only=True)
class _Everything:
    """The episodes of all datasets, one after the other."""

    datasets: Sequence[Signed]
    members: Array  # [E] index of the dataset
    episodes: Array  # [E] position in the dataset
    hashes: Array  # [E]
    lengths: Array  # [E]
    splits: Sequence[str]  # [E]
    comparable: Sequence[Array]  # rows of the episodes of datasets with equal Spaces and cameras

    @classmethod
    def of(cls, datasets: Sequence[Signed]) -> "_Everything":
        counts = [len(dataset.columns["episode"]) for dataset in datasets]
        ends = np.cumsum(counts)
        groups: dict[tuple[str, ...], list[Array]] = {}
        for dataset, end, count in zip(datasets, ends.tolist(), counts, strict=True):
            about = dataset.about
            meaning = (about.action.digest(), about.state.digest() if about.state else "", *about.cameras)
            groups.setdefault(meaning, []).append(np.arange(end - count, end))
        joined = {name: np.concatenate([d.columns[name] for d in datasets]) for name in ("episode", "hash", "length")}
        return cls(
            datasets=datasets,
            members=np.repeat(np.arange(len(datasets)), counts),
            episodes=joined["episode"],
            hashes=joined["hash"],
            lengths=joined["length"],
            splits=[split for dataset in datasets for split in dataset.splits],
            comparable=[np.concatenate(rows) for rows in groups.values()],
        )

    def place(self, row: int) -> tuple[int, int]:
        """Return the dataset and the position of an episode."""
        return self.datasets[int(self.members[row])].about.member, int(self.episodes[row])

    def named(self, row: int) -> str:
        """Name an episode in a message."""
        episode = self.episodes[row]
        name = self.datasets[int(self.members[row])].about.name
        return f"episode {episode} of '{name}'" if len(self.datasets) > 1 else f"episode {episode}"

    def finding(self, first: int, second: int, *, distance: float | None = None) -> RuleFinding:
        """Return the finding of a pair; it belongs to the second episode."""
        (member, episode), other = self.place(second), self.place(first)
        splits = self.splits[first], self.splits[second]
        leaks = splits[0] != splits[1]
        where = f"; they are in the splits '{splits[1]}' and '{splits[0]}'" if leaks else ""
        if distance is None:
            rule = "split_leak" if leaks else "duplicate"
            message = f"the actions and states are those of {self.named(first)}{where}"
        else:
            rule = "near_duplicate"
            message = f"its path is only {distance:.2%} of the usual range away from that of {self.named(first)}{where}"
        return RuleFinding(member=member, rule=rule, episode=episode, other=other, value=distance, message=message)

    def paths(self, rows: Array) -> Array:
        """Return paths in units of the usual range of each dimension, [E, POINTS, D]; constant dimensions are 0."""
        parts = []
        for i, dataset in enumerate(self.datasets):
            chosen = rows[self.members[rows] == i]
            if len(chosen):
                start = int(np.searchsorted(self.members, i))
                parts.append(dataset.columns["path"][chosen - start])
        paths = np.concatenate(parts)
        low, high = (np.percentile(paths.reshape(-1, paths.shape[-1]), q, axis=0) for q in (1, 99))
        usual = (high - low).astype(np.float32)
        return np.asarray(np.divide(paths, usual, out=np.zeros_like(paths), where=usual > 0))


def _equal(everything: _Everything) -> Iterator[tuple[int, int]]:
    """Yield each episode with the first one that has the same hash."""
    order = np.argsort(everything.hashes, kind="stable")
    ordered = everything.hashes[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    firsts = order[is_first][np.cumsum(is_first) - 1]
    pairs = [(int(first), int(row)) for first, row, new in zip(firsts, order, is_first, strict=True) if not new]
    yield from sorted(pairs, key=lambda pair: pair[1])


def _near(everything: _Everything, rows: Array, *, between: bool) -> Array:
    """Return the pairs of rows whose paths are almost equal, with their distance, [P] of PAIR."""
    limits = everything.datasets[0].about.rules.near_duplicate
    paths = everything.paths(rows)
    lengths, members, hashes = everything.lengths[rows], everything.members[rows], everything.hashes[rows]
    near = [np.zeros(0, PAIR)]
    for candidates in _candidates(paths, radius=limits.distance):
        sizes = lengths[candidates]
        is_wanted = sizes.min(axis=1) >= (1 - limits.length) * sizes.max(axis=1)
        is_wanted &= hashes[candidates[:, 0]] != hashes[candidates[:, 1]]
        is_wanted &= (members[candidates[:, 0]] != members[candidates[:, 1]]) | (not between)
        pairs = candidates[is_wanted]
        for block in np.array_split(pairs, -(-len(pairs) // BLOCK) or 1):
            distances = _distances(paths[block[:, 0]], paths[block[:, 1]])
            is_near = distances <= limits.distance
            close = np.zeros(int(is_near.sum()), PAIR)
            close["first"], close["second"] = rows[block[is_near]].T
            close["distance"] = distances[is_near]
            near.append(close)
    return np.unique(np.concatenate(near))


def _alike(everything: _Everything, pairs: Array, look: Look) -> Array:
    """Return the pairs whose images look alike as well."""
    rows = np.unique(np.concatenate([pairs["first"], pairs["second"]]))
    members = everything.members[rows]
    looks = [look(number, everything.episodes[rows[members == number]]) for number in np.unique(members).tolist()]
    if not looks:
        return pairs
    joined = np.concatenate(looks)
    first, second = (joined[np.searchsorted(rows, pairs[name])] for name in ("first", "second"))
    return pairs[apart(first, second) <= everything.datasets[0].about.rules.near_duplicate.look]


def _candidates(paths: Array, *, radius: float) -> Iterator[Array]:
    """Yield pairs of episodes that may be almost equal, [P, 2], the smaller number first; a pair may come twice.

    Episodes with a distance up to `radius` fall into the same cell of each projection with a probability of about
    1 - 1 / CELL, and into the same cells of at least one of the tables almost surely.
    """
    flat = paths.reshape(len(paths), -1)
    rng = np.random.default_rng(SEED)
    for _ in range(TABLES):
        directions = rng.standard_normal((flat.shape[1], PROJECTIONS)).astype(np.float32) / np.sqrt(flat.shape[1])
        projected = flat @ directions
        cells = np.floor(projected / (CELL * radius) + rng.random(PROJECTIONS)).astype(np.int64)
        order = np.lexsort((projected[:, 0], *cells.T))
        ordered, along = cells[order], projected[order, 0]
        for step in range(1, min(NEIGHBOURS + 1, len(order))):
            is_same = (ordered[step:] == ordered[:-step]).all(axis=1) & (along[step:] - along[:-step] <= 4 * radius)
            if is_same.any():
                yield np.sort(np.stack([order[:-step][is_same], order[step:][is_same]], axis=1), axis=1)


def _distances(first: Array, second: Array) -> Array:
    """Return the mean distance of the points of pairs of paths, warped in time by up to BAND points, [P]."""
    points = first.shape[1]
    cost = {
        shift: np.sqrt(
            np.square(
                first[:, max(0, -shift) : points - max(0, shift)] - second[:, max(0, shift) : points - max(0, -shift)]
            ).mean(axis=2)
        )
        for shift in range(-BAND, BAND + 1)
    }
    total = np.full((points, 2 * BAND + 1, len(first)), np.inf)
    for i in range(points):
        for shift in range(-BAND, BAND + 1):
            j = i + shift
            if not 0 <= j < points:
                continue
            here = cost[shift][:, min(i, j)]
            before = [total[i - 1, shift + BAND]] if i and j else []
            before += [total[i - 1, shift + 1 + BAND]] if i and shift < BAND else []
            before += [total[i, shift - 1 + BAND]] if j and shift > -BAND else []
            total[i, shift + BAND] = here + (np.minimum.reduce(before) if before else 0)
    return np.asarray(total[-1, BAND] / points)
