"""Progress of the shards that other processes work on."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from pipelines.beam.shards import Shard
from schemas.errors import UnreachableError


class Progress:
    """Receives the progress of a command. This class ignores it; subclasses may show it."""

    def expect(self, episodes: int, *, workers: int = 1) -> None:
        """Set the number of episodes to come and the number of processes that work on them."""

    def warn(self, text: str) -> None:
        """Show a warning to the user before the work starts."""

    def __call__(self, episodes: int, size: int) -> None:
        """Add the episodes and source bytes that were done since the last call."""


silent = Progress()
POLL, POLL_REMOTE = 0.2, 5.0  # seconds


@contextmanager
def report_progress(
    finished: Callable[[], set[str]],
    refs: Sequence[Shard],
    progress: Progress,
    *,
    workers: int = 1,
    every: float = POLL,
) -> Iterator[None]:
    """Report to `progress` each shard that other processes finish.

    `finished` returns the names of the finished shards. It is called every `every` seconds.
    """
    ended = threading.Event()
    sizes = {ref.name: (ref.episodes, ref.size) for ref in refs}
    reported: set[str] = set()
    progress.expect(sum(episodes for episodes, _ in sizes.values()), workers=workers)

    def report() -> None:
        with suppress(UnreachableError):  # if the error persists, the work itself raises it
            for name in sorted(finished() & sizes.keys() - reported):
                reported.add(name)
                progress(*sizes[name])

    def watch() -> None:
        while not ended.wait(every):
            report()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        report()
