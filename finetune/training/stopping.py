"""Stops a run after the current step on SIGTERM or Ctrl-C, and immediately on a second signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME = 3.0  # seconds in which signals count as one, because torchrun forwards a Ctrl-C that its processes also get


class Stop:
    """A signal handler that records when a stop was requested."""

    def __init__(self) -> None:
        self.requested_at: float | None = None

    @property
    def is_requested(self) -> bool:
        """Whether a stop was requested."""
        return self.requested_at is not None

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Record a signal. Raises KeyboardInterrupt if a stop was requested more than 3 seconds ago."""
        if self.requested_at is not None and monotonic() - self.requested_at > SAME:
            raise KeyboardInterrupt
        self.requested_at = self.requested_at or monotonic()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle SIGTERM and Ctrl-C inside this context, and restore the previous handlers after it."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
