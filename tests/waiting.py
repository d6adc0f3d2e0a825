"""How long tests wait for other processes and threads."""

import time
from collections.abc import Callable

PATIENCE = 600  # seconds; longer than anything takes on a busy machine


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)
