"""Worker processes on this machine: on Linux, forks of one process that has imported Beam for all of them.

That process has no threads of Python's and does nothing but import and fork. Elsewhere each worker imports by itself.
"""

import multiprocessing
import sys
from multiprocessing import forkserver

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
# Dask comes first: behind Beam, which sets up logging, it could no longer be silenced.
IMPORTS = ("distributed", "pipelines.beam.run", "apache_beam.runners.dask.transform_evaluator")


def prepare() -> None:
    """Let that process begin its imports; it needs as long as this one does for its own, and beside them."""
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(list(IMPORTS))
        forkserver.ensure_running()
