"""SIGTERM and Ctrl-C ask a run to stop behind its step; when they come again later they stop it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME = 3.0  # seconds: torchrun hands on a Ctrl-C that its processes got from the terminal, too


class Stop:
    """Whether it was asked to, and when."""

    def __init__(self) -> None:
        self.asked_at: float | None = None

    @property
    def is_asked(self) -> bool:
        """Say whether it was asked to."""
        return self.asked_at is not None

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Take note of a signal."""
        if self.asked_at is not None and monotonic() - self.asked_at > SAME:
            raise KeyboardInterrupt
        self.asked_at = self.asked_at or monotonic()


@contextmanager
def asked_to_stop() -> Iterator[Stop]:
    """Listen to signals while a run lasts."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
