"""The processes that do the work of a command."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The processes that do the work. The result is the same for every engine."""

    workers: int = 1  # number of processes on this machine
    runner: str | None = None  # name of a Beam runner to use instead
    options: tuple[str, ...] = ()  # options of that runner, as on Beam's command line
    cluster: str | None = None  # address of the Dask scheduler to use

    @property
    def is_this_process(self) -> bool:
        """Whether all work is done in this process."""
        return self.runner is None and self.cluster is None and self.workers == 1

    def for_parts(self, parts: int) -> "Engine":
        """Return the engine to use for this number of parts; a single part is counted in this process.

        >>> Engine(workers=8).for_parts(1).is_this_process
        True
        """
        return THIS_PROCESS if parts == 1 else self


THIS_PROCESS = Engine()
