"""Where work runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where work runs; the result is the same everywhere."""

    workers: int = 1  # processes on this machine
    runner: str | None = None  # Beam's name of another runner
    options: tuple[str, ...] = ()  # for that runner, as Beam's command line has them
    cluster: str | None = None  # the address of the Dask scheduler whose workers do the work

    @property
    def is_this_process(self) -> bool:
        """Whether nothing but this process works."""
        return self.runner is None and self.cluster is None and self.workers == 1

    def sharing(self, parts: int) -> "Engine":
        """Return the engine for so many parts: a single one leaves nothing to share out, and is counted here.

        >>> Engine(workers=8).sharing(1).is_this_process
        True
        """
        return THIS_PROCESS if parts == 1 else self


THIS_PROCESS = Engine()
