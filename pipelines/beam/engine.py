"""Where work runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where work runs; the result is the same everywhere."""

    workers: int = 1  # processes on this machine
    runner: str | None = None  # Beam's name of another runner
    options: tuple[str, ...] = ()  # for that runner, as Beam's command line has them
