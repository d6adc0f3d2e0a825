"""How long work tells how far it is."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from pipelines.beam.shards import Shard
from schemas.errors import UnreachableError


class Progress:
    """Is told how far work is. This one tells nobody."""

    def expect(self, episodes: int, *, workers: int = 1) -> None:
        """Say how much there is to do, and how many processes do it."""

    def __call__(self, episodes: int, size: int) -> None:
        """Say how many episodes and source bytes were done since the last call."""


silent = Progress()
POLL, POLL_REMOTE = 0.2, 5.0  # seconds


@contextmanager
def watched(
    finished: Callable[[], set[str]],
    refs: Sequence[Shard],
    progress: Progress,
    *,
    workers: int = 1,
    every: float = POLL,
) -> Iterator[None]:
    """Tell the progress of work that other processes do: each shard once, when `finished` names it.

    It is asked again after `every` seconds.
    """
    ended = threading.Event()
    sizes = {ref.name: (ref.episodes, ref.size) for ref in refs}
    told: set[str] = set()
    progress.expect(sum(episodes for episodes, _ in sizes.values()), workers=workers)

    def tell() -> None:
        with suppress(UnreachableError):  # then later, or not: the work itself says what is wrong
            for name in sorted(finished() & sizes.keys() - told):
                told.add(name)
                progress(*sizes[name])

    def watch() -> None:
        while not ended.wait(every):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        tell()
