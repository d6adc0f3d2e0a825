"""SIGTERM and Ctrl-C ask a run to stop behind its step; a second time they stop it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether it was asked to."""

    def __init__(self) -> None:
        self.is_asked = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Take note of a signal."""
        self.is_asked = True
        signal.signal(number, signal.default_int_handler)


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
