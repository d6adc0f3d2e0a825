"""How long work tells how far it is."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from pipelines.readers.source import ShardRef

Progress: TypeAlias = Callable[[int, int], None]  # episodes and bytes done since the last call


def silent(_episodes: int, _bytes: int) -> None:
    """Tell nobody."""


POLL = 0.2  # seconds


@contextmanager
def watched(finished: Callable[[], set[str]], refs: Sequence[ShardRef], progress: Progress) -> Iterator[None]:
    """Tell the progress of work that other processes do: each shard once, when `finished` names it."""
    ended = threading.Event()
    sizes = {ref.name: (ref.episodes, sum(part.size or 0 for part in ref.parts)) for ref in refs}
    told: set[str] = set()

    def tell() -> None:
        for name in sorted(finished() & sizes.keys() - told):
            told.add(name)
            progress(*sizes[name])

    def watch() -> None:
        while not ended.wait(POLL):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        tell()
