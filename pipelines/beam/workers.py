"""Worker processes on this machine.

On Linux the workers are forked from a server process, which imports Beam once and starts no Python threads. On other
systems each worker imports Beam itself.
"""

import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from multiprocessing import forkserver

from pipelines.beam.engine import Engine
from schemas.errors import MissingExtraError, UsageError
from schemas.files import durable

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
RUN = "pipelines.beam.run"
# Dask is imported before Beam: once Beam has set up logging, Dask's messages can no longer be switched off.
IMPORTS = ("distributed", RUN, "apache_beam.runners.dask.transform_evaluator")


@contextmanager
def running_workers(engine: Engine) -> Iterator[Engine]:
    """Start the worker processes of an engine and yield an engine that uses them; they end with the context.

    If the engine needs no workers or they already run, it is yielded unchanged. A command can therefore enter this
    context several times but starts the workers only once. A worker that is killed is started again and repeats its
    part. Raises UsageError if the folder for temporary files has no place for sockets.
    """
    if engine.is_this_process or engine.runner or engine.cluster:
        yield engine
        return
    try:
        start_server()  # first, so that it imports while this process does
    except OSError as error:
        place = tempfile.gettempdir()
        fix = "set TMPDIR to a folder that can be written and whose path is short"
        raise UsageError(f"{place}: --workers cannot create a socket there ({error}); {fix}") from error
    import_module(RUN)  # imports Beam before Dask, and without Beam's warnings
    try:
        from dask import config  # noqa: PLC0415 - an extra
        from distributed import LocalCluster  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("dask", extra="dask") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    # Each worker imports RUN first, which silences Beam's warnings.
    quiet = {"silence_logs": logging.ERROR, "preload": [RUN]}
    # Dask starts the dashboard's server even if there is no dashboard, so it is given a free local port.
    quiet |= {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        _restored_environment(),
        durable.scratch_folder() as scratch,  # Dask would leave its own folder in TMPDIR
        config.set({"distributed.worker.multiprocessing-method": METHOD, "temporary-directory": str(scratch)}),
        LocalCluster(n_workers=engine.workers, threads_per_worker=1, **quiet) as cluster,
    ):
        yield replace(engine, cluster=cluster.scheduler_address)


@contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore this process's environment, in which Dask limits its workers to one thread (`OMP_NUM_THREADS`)."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def start_server() -> None:
    """Start the process that workers are forked from; it imports Beam in parallel with this one."""
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(list(IMPORTS))
        forkserver.ensure_running()
