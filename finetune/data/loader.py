"""The loader: batches of a locked mixture, in the order of its sampling law. It needs no torch; docs/loader.md."""

import copy
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np

from finetune.data.assemble import Assembly, Batch, Drawn
from finetune.data.cache import LIMIT, BlockCache, default_folder
from finetune.data.order import InTurn, Order
from finetune.data.pictures import Decoder
from finetune.data.preprocessing import Preprocessing
from finetune.data.sources import opened
from finetune.data.windows import Reader
from schemas.errors import MixtureError, UsageError, did_you_mean
from schemas.mixture import lock as locks
from schemas.mixture.lock import TRAIN, VALIDATION
from stats.norm import NormStats

PLANNED = 2048  # draws that are looked up at once
MOST = 1 << 40  # draws that a position may count: all of them are hashed to go on there
AHEAD = 2  # batches that are decoded beyond those that threads are at

Ends: TypeAlias = Literal["mask", "drop"]
Missing: TypeAlias = Literal["error", "black"]
Corrupt: TypeAlias = Literal["error", "substitute"]
Part: TypeAlias = Literal["train", "val"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read of each drawn step.

    `cameras` by role or name (none: nothing is decoded); `history` observations that end with the step; `chunk`
    actions that begin with it. Behind an episode's end a chunk repeats the last action and says so (`ends` "mask"), or
    steps with too few behind them are not drawn ("drop"). `missing` "black" shows black where a source lacks a camera
    or a frame; `corrupt` "substitute" draws another step of the same stratum for one with an image that is damaged.
    """

    cameras: tuple[str, ...] = ("primary",)
    history: int = 1
    chunk: int = 1
    ends: Ends = "mask"
    state: bool = False
    missing: Missing = "error"
    corrupt: Corrupt = "error"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        kinds = (("ends", Ends), ("missing", Missing), ("corrupt", Corrupt))
        for name, kind in kinds:
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"{name} '{getattr(self, name)}'{did_you_mean(getattr(self, name), get_args(kind))}")
        if min(self.history, self.chunk) < 1:
            raise UsageError(f"history {self.history} and chunk {self.chunk}: both count steps, at least 1")
        if self.corrupt == "substitute" and self.preprocessing.size is None:
            raise UsageError("corrupt 'substitute': a damaged image does not tell its size; give the preprocessing one")
        if isinstance(self.cameras, str) or len(set(self.cameras)) < len(self.cameras):
            raise UsageError(f"cameras {self.cameras!r}: a tuple of different names")


class Loader:
    """Batches of one part of a locked mixture.

    `train` is drawn from without end; of `val`, every step comes once. The order is a function of the lock and the
    seed; `world` processes share it, and rank r of them has the r-th `batch_size` draws of every
    `world * batch_size`. With `threads`, batches are made ahead. It may be pickled, and forked between batches.
    """

    def __init__(
        self,
        lock: str | Path,
        reading: Reading | None = None,
        *,
        batch_size: int = 1,
        part: Part = "train",
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        threads: int = 0,
        cache: str | Path | None = None,
        cache_bytes: int = LIMIT,
    ) -> None:
        """Open a lock and its datasets; what has changed since is a MixtureError that names it.

        `cache` keeps records of the steps and, up to `cache_bytes`, blocks of remote datasets.
        """
        if part not in (TRAIN, VALIDATION):
            raise UsageError(f"part '{part}'{did_you_mean(part, (TRAIN, VALIDATION))}")
        if any(type(number) is not int for number in (batch_size, threads, rank, world)) or (
            batch_size < 1 or threads < 0 or not 0 <= rank < world
        ):
            raise UsageError(f"batch_size {batch_size}, threads {threads}, rank {rank} of {world}: not possible")
        if seed is not None and not 0 <= seed < 1 << 64:
            raise UsageError(f"seed {seed}: must be in 0 .. 2**64 - 1")
        path = Path(lock)
        self.lock, table = locks.read(path)
        self.reading, self.part = reading or Reading(), part
        self.batch_size, self.rank, self.world, self.threads = batch_size, rank, world, threads
        self._order = Order(self.lock, table, part=part, dropped=self._dropped)
        self._law = self._order.law(seed) if part == TRAIN else InTurn(self._order.sizes)
        self.seed = self.lock.seed if seed is None else seed
        blocks = BlockCache(Path(cache) / "blocks" if cache else default_folder() / "blocks", cache_bytes)
        may_lack = self.reading.missing == "black"
        self._opened = opened(self.lock, path.parent, cameras=self.reading.cameras, may_lack=may_lack, cache=blocks)
        self._assembly = Assembly(
            order=self._order,
            reader=Reader(self._opened, method=self.lock.method, state=self.reading.state),
            decoder=Decoder(
                cameras=self.reading.cameras,
                preprocessing=self.reading.preprocessing,
                seed=self.seed,
                may_lack=may_lack,
                may_break=self.reading.corrupt == "substitute",
            ),
            history=self.reading.history,
            chunk=self.reading.chunk,
        )
        self.broken: Counter[str] = Counter()  # images that could not be decoded, and how often each was drawn
        self.draws = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """The names that the `source` of a batch counts."""
        return tuple(self.lock.sources)

    @property
    def steps(self) -> int:
        """The steps that may be drawn."""
        return len(self._order)

    def norm(self, source: str) -> NormStats:
        """Give what a source's actions are normalized with, in the mixture's dimensions."""
        if source not in self.sources:
            raise UsageError(f"no source '{source}'{did_you_mean(source, self.sources)}")
        return self._opened[self.sources.index(source)].norm

    def sharded(self, rank: int, world: int) -> Self:
        """Give the same loader for one of several processes."""
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} of {world}: not possible")
        other = copy.copy(self)
        other.rank, other.world, other.broken = rank, world, Counter()
        return other

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches from where the last one ended; one iteration at a time.

        What was read to its end begins anew.
        """
        for batch in self.batches():
            self.count(batch)
            yield batch

    def count(self, batch: Batch) -> None:
        """Take note of a batch that was handed out: the next iteration begins behind it."""
        self.draws = batch.end
        self.broken.update(batch.broken)

    def batches(self, first: int = 0, every: int = 1) -> Iterator[Batch]:
        """Make every `every`-th batch from the `first` one on, for one of several workers; nothing is counted."""
        planned = self._planned(first, every)
        if not self.threads:
            yield from map(self._assembly.batch, planned)
            return
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="oxe-loader")
        try:
            waiting: deque[Future[Batch]] = deque()
            for drawn in planned:
                waiting.append(pool.submit(self._assembly.batch, drawn))
                if len(waiting) >= self.threads + AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """Give the position, as JSON can hold it; it fits any number of processes and any batch size."""
        return {"draws": self.draws, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at a position; one in another order is a MixtureError."""
        differing = [key for key, value in self._identity.items() if state.get(key) != value]
        if differing:
            raise MixtureError(
                f"{self.lock.name}: a position in another order: {', '.join(differing)} differ; its number of draws "
                "would not lead to the same samples"
            )
        draws = state.get("draws")
        if not isinstance(draws, int) or isinstance(draws, bool) or not 0 <= draws < MOST:
            raise MixtureError(f"{self.lock.name}: a position of {draws!r} draws: not one that a loader gave")
        self.draws = draws

    @property
    def _identity(self) -> dict[str, Any]:
        """What the order depends on."""
        order = {"episodes": self.lock.episodes, **self._law.to_json()}
        return {"order": locks.digest(order), "part": self.part, "seed": self.seed, "dropped": self._dropped}

    @property
    def _dropped(self) -> int:
        return self.reading.chunk - 1 if self.reading.ends == "drop" else 0

    def _planned(self, first: int, every: int) -> Iterator[Drawn]:
        """Look up the draws of each batch, many at once."""
        whole, start, number = self.batch_size * self.world, self.draws, 0
        if self._law.count is not None and start >= self._law.count:
            start = 0
        at_once = max(1, PLANNED // whole)
        counters = self._law.counters(start)
        while self._law.count is None or start < self._law.count:
            strata, turns, counters = self._law.turns(start, start + at_once * whole, counters)
            own = np.array([i for i in range(at_once) if (number + i) % every == first], np.int64)
            places = own[:, None] * whole + self.rank * self.batch_size + np.arange(self.batch_size)
            steps = self._law.steps(strata[places.ravel()], turns[places.ravel()]).reshape(places.shape)
            ends = start + (own + 1) * whole
            for end, draw, stratum, step in zip(ends.tolist(), start + places, strata[places], steps, strict=True):
                drawn = Drawn(end=end, draw=draw, stratum=stratum, step=step)
                if self._law.count is None:
                    yield drawn
                elif end - whole < self._law.count:
                    yield drawn.until(self._law.count)
            start, number = start + at_once * whole, number + at_once
