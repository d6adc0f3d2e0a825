"""Worker processes on this machine: on Linux, forks of one process that has imported Beam for all of them.

That process has no threads of Python's and does nothing but import and fork. Elsewhere each worker imports by itself.
"""

import logging
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from multiprocessing import forkserver

from pipelines.beam.engine import Engine
from schemas.errors import MissingExtraError

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
RUN = "pipelines.beam.run"
# Dask comes first: behind Beam, which sets up logging, it could no longer be silenced.
IMPORTS = ("distributed", RUN, "apache_beam.runners.dask.transform_evaluator")


@contextmanager
def started(engine: Engine) -> Iterator[Engine]:
    """Start the worker processes of an engine that has some; until the end, the engine yielded works on them.

    One whose processes run already, and one without any, are yielded as they are: all the work of a command is done by
    the same workers. One that is killed is started again and its part done again.
    """
    if engine.is_this_process or engine.runner or engine.cluster:
        yield engine
        return
    prepare()  # before the next lines, whose imports it has to do as well
    import_module(RUN)  # Beam before Dask, and without its warnings
    try:
        from dask import config  # noqa: PLC0415 - an extra
        from distributed import LocalCluster  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("dask", extra="dask") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    # A worker imports that file first, and so Beam without its warnings.
    quiet = {"silence_logs": logging.ERROR, "preload": [RUN]}
    # There is no dashboard, but its server starts all the same: on a free port that only this machine sees.
    quiet |= {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        config.set({"distributed.worker.multiprocessing-method": METHOD}),
        LocalCluster(n_workers=engine.workers, threads_per_worker=1, **quiet) as cluster,
    ):
        yield replace(engine, cluster=cluster.scheduler_address)


def prepare() -> None:
    """Let that process begin its imports; it needs as long as this one does for its own, and beside them."""
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(list(IMPORTS))
        forkserver.ensure_running()
