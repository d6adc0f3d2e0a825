"""The loader: batches of a locked mixture, in the order of its sampling law. Works without torch.

docs/loader.md explains how to use it.
"""

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
from finetune.data.sources import LockedSource, open_sources
from finetune.data.windows import WindowReader
from schemas.errors import MixtureError, UsageError, did_you_mean
from schemas.mixture import lock as locks
from schemas.mixture.lock import TRAIN, VALIDATION
from stats.norm import NormStats

PLANNED = 2048  # how many draws are looked up at once
MOST = 1 << 40  # limit on the draws of a saved position, because resuming computes a hash for each of them
AHEAD = 2  # how many batches are prepared in advance, besides one for each thread

Ends: TypeAlias = Literal["mask", "drop"]
Missing: TypeAlias = Literal["error", "black"]
Corrupt: TypeAlias = Literal["error", "substitute"]
Part: TypeAlias = Literal["train", "val"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What a loader reads for each drawn step.

    `cameras` are roles or names. If the tuple is empty, no images are decoded. `history` is the number of observations
    up to and including the step. `chunk` is the number of actions from the step on.

    `ends` applies to chunks that pass the end of an episode. With "mask", the last action is repeated and marked as
    padding. With "drop", such steps are not drawn. If `missing` is "black", a black image is returned when a source
    lacks a camera or a frame. If `corrupt` is "substitute", a step with a damaged image is replaced by another step of
    the same stratum. With "error", a missing or damaged image raises an error. If `paraphrases` is False, the part
    `train` returns the recorded instructions, as other parts do, whatever paraphrases the mixture has.
    """

    cameras: tuple[str, ...] = ("primary",)
    history: int = 1
    chunk: int = 1
    ends: Ends = "mask"
    state: bool = False
    missing: Missing = "error"
    corrupt: Corrupt = "error"
    paraphrases: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        """Raise UsageError if an option has no valid value."""
        kinds = (("ends", Ends), ("missing", Missing), ("corrupt", Corrupt))
        for name, kind in kinds:
            if getattr(self, name) not in get_args(kind):
                value = getattr(self, name)
                raise UsageError(f"{name}: unknown value '{value}'{did_you_mean(value, get_args(kind))}")
        if min(self.history, self.chunk) < 1:
            raise UsageError(f"history {self.history}, chunk {self.chunk}: both must be at least 1 step")
        if self.corrupt == "substitute" and self.preprocessing.size is None:
            raise UsageError("corrupt 'substitute' requires a preprocessing with a size: a damaged image has none")
        if isinstance(self.cameras, str) or len(set(self.cameras)) < len(self.cameras):
            raise UsageError(f"cameras: expected a tuple of different names, got {self.cameras!r}")


class Loader:
    """Batches of one part of a locked mixture.

    The part `train` never ends. The part `val` returns every step once. The order depends on the lock and the seed.

    `world` processes share the draws: of every `world * batch_size` draws, rank r gets those from `r * batch_size` on.
    If `threads` is not 0, batches are prepared in advance. A loader may be pickled, and forked between batches.
    """

    def __init__(
        self,
        lock: str | Path,
        options: LoaderOptions | None = None,
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
        """Open a lock and its datasets. Raises MixtureError if a dataset is missing or has changed.

        The folder `cache` stores records of the steps, and blocks of remote datasets of at most `cache_bytes` in all.
        """
        if part not in (TRAIN, VALIDATION):
            raise UsageError(f"unknown part '{part}'{did_you_mean(part, (TRAIN, VALIDATION))}")
        if any(type(number) is not int for number in (batch_size, threads, rank, world)) or (
            batch_size < 1 or threads < 0 or not 0 <= rank < world
        ):
            raise UsageError(
                f"batch_size {batch_size}, threads {threads}, rank {rank} of {world}: expected whole numbers, "
                "batch_size >= 1, threads >= 0 and 0 <= rank < world"
            )
        if seed is not None and not 0 <= seed < 1 << 64:
            raise UsageError(f"seed {seed}: must be in 0 .. 2**64 - 1")
        path = Path(lock)
        self.lock, table = locks.read(path)
        self.options, self.part = options or LoaderOptions(), part
        self.batch_size, self.rank, self.world, self.threads = batch_size, rank, world, threads
        self._order = Order(self.lock, table, part=part, dropped=self._dropped)
        self._law = self._order.law(seed) if part == TRAIN else InTurn(self._order.sizes)
        self.seed = self.lock.seed if seed is None else seed
        blocks = BlockCache(Path(cache) / "blocks" if cache else default_folder() / "blocks", cache_bytes)
        may_lack = self.options.missing == "black"
        self._sources = open_sources(
            self.lock, path.parent, cameras=self.options.cameras, may_lack=may_lack, cache=blocks
        )
        self._assembly = Assembly(
            order=self._order,
            reader=WindowReader(self._sources, method=self.lock.method, state=self.options.state),
            decoder=Decoder(
                cameras=self.options.cameras,
                preprocessing=self.options.preprocessing,
                seed=self.seed,
                may_lack=may_lack,
                may_break=self.options.corrupt == "substitute",
            ),
            history=self.options.history,
            chunk=self.options.chunk,
            paraphrases=self.lock.paraphrases if part == TRAIN and self.options.paraphrases else {},
        )
        self.broken: Counter[str] = Counter()  # how often each damaged image was drawn, by message
        self.draws = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources. `Batch.source` contains indices into this tuple."""
        return tuple(self.lock.sources)

    @property
    def steps(self) -> int:
        """The number of steps that may be drawn."""
        return len(self._order)

    def norm(self, source: str) -> NormStats:
        """Return the NormStats of a source's actions, in the mixture's dimensions."""
        return self._source(source).norm

    def state_norm(self, source: str) -> NormStats:
        """Return the NormStats of a source's states; `names` are their dimensions. Raises UsageError if it has none."""
        norm = self._source(source).state_norm
        if norm is None:
            raise UsageError(f"{source}: has no state")
        return norm

    def _source(self, name: str) -> LockedSource:
        if name not in self.sources:
            raise UsageError(f"no source '{name}'{did_you_mean(name, self.sources)}")
        return self._sources[self.sources.index(name)]

    def sharded(self, rank: int, world: int) -> Self:
        """Return a copy of the loader for process `rank` of `world` processes."""
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} of {world}: expected 0 <= rank < world")
        other = copy.copy(self)
        other.rank, other.world, other.broken = rank, world, Counter()
        return other

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches, starting after the last one that was returned.

        Only one iteration may run at a time. After the end of a part, the next iteration starts from its beginning.
        """
        for batch in self.batches():
            self.count(batch)
            yield batch

    def count(self, batch: Batch) -> None:
        """Record that a batch was returned, so that the next iteration starts after it."""
        self.draws = batch.end
        self.broken.update(batch.broken)

    def batches(self, first: int = 0, every: int = 1) -> Iterator[Batch]:
        """Yield every `every`-th batch from number `first` on, for one of several workers; does not call `count`."""
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
        """Return the position as JSON values. It does not depend on the batch size or the number of processes."""
        return {"draws": self.draws, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a saved position. Raises MixtureError if it was saved by a loader with another order."""
        differing = [key for key, value in self._identity.items() if state.get(key) != value]
        if differing:
            raise MixtureError(
                f"{self.lock.name}: the position belongs to another order: {', '.join(differing)} differ; open the "
                "loader with the same lock, part, seed and options"
            )
        draws = state.get("draws")
        if not isinstance(draws, int) or isinstance(draws, bool) or not 0 <= draws < MOST:
            raise MixtureError(f"{self.lock.name}: draws: expected the number that a loader saved, got {draws!r}")
        self.draws = draws

    @property
    def _identity(self) -> dict[str, Any]:
        """The values on which the order depends."""
        order = {"episodes": self.lock.episodes, **self._law.to_json()}
        return {"order": locks.digest(order), "part": self.part, "seed": self.seed, "dropped": self._dropped}

    @property
    def _dropped(self) -> int:
        return self.options.chunk - 1 if self.options.ends == "drop" else 0

    def _planned(self, first: int, every: int) -> Iterator[Drawn]:
        """Yield the draws of each batch. They are looked up for several batches at once, which is faster."""
        whole, start, number = self.batch_size * self.world, self.draws, 0
        if self._law.count is not None and start >= self._law.count:
            start = 0
        at_once = max(1, PLANNED // whole)
        counters = self._law.counters(start)
        while self._law.count is None or start < self._law.count:
            strata, turns, counters = self._law.turns(start, start + at_once * whole, counters)
            own = np.array([i for i in range(at_once) if (number + i) % every == first], np.int64)
            positions = own[:, None] * whole + self.rank * self.batch_size + np.arange(self.batch_size)
            steps = self._law.steps(strata[positions.ravel()], turns[positions.ravel()]).reshape(positions.shape)
            ends = start + (own + 1) * whole
            rows = zip(ends.tolist(), start + positions, strata[positions], steps, strict=True)
            for end, draw, stratum, step in rows:
                drawn = Drawn(end=end, draw=draw, stratum=stratum, step=step)
                if self._law.count is None:
                    yield drawn
                elif end - whole < self._law.count:
                    yield drawn.until(self._law.count)
            start, number = start + at_once * whole, number + at_once
