"""How long tests wait for other processes and threads."""

import time
from collections.abc import Callable

PATIENCE = 600  # seconds: nothing takes so long that works, also on a machine that is busy with other things


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)
