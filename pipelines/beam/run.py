"""The Beam graph of conversions and exports: Create(shards) -> ParDo(do one shard).

Only the portable core of Beam is used, and only names and messages pass through it: a shard's outcome is the record it
leaves, on whatever engine it ran.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pipelines.beam.engine import Engine
from pipelines.beam.progress import POLL, POLL_REMOTE, Progress, silent, watched
from pipelines.beam.shards import Job, Marks, Shard, Worker
from pipelines.beam.workers import METHOD
from schemas.errors import MissingExtraError, TooManyQuarantinedError, UsageError

logging.disable(logging.WARNING)  # Beam warns of Google Cloud libraries that nobody asked for
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # noqa: E402
from apache_beam.runners.runner import PipelineRunner, PipelineState, create_runner  # noqa: E402

logging.disable(logging.NOTSET)
logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it logs what it raises


class DoShard(beam.DoFn):
    """Does shards with one opened job per worker; yields each shard's name and what went wrong, if anything."""

    def __init__(self, job: Job) -> None:
        """Keep the job; it is opened on the worker."""
        self.job = job
        self.worker: Worker | None = None

    def setup(self) -> None:
        """Open what the job needs, once per worker."""
        self.worker = self.job.open()

    def process(self, ref: Any) -> Iterator[tuple[str, str | None]]:
        """Do one Shard; Beam checks annotations while it runs, and cannot check a protocol."""
        worker = self.worker or self.job.open()
        yield ref.name, worker.shard(ref)


def run(job: Job, refs: Sequence[Shard], marks: Marks, *, engine: Engine, progress: Progress = silent) -> None:
    """Do shards on an engine and wait for it; `marks` are what the job's workers leave.

    Shards that fail for good are one UsageError that names the first, and so is an engine that breaks down. Too many
    quarantined episodes are a TooManyQuarantinedError.
    """

    def graph(pipeline: beam.Pipeline, *, spread: bool) -> None:
        shards = pipeline | "shards" >> beam.Create(list(refs), reshuffle=spread)
        _ = shards | "work" >> beam.ParDo(DoShard(job))

    every = POLL if marks.out.local else POLL_REMOTE
    with watched(marks.finished, refs, progress, workers=engine.workers, every=every):
        run_graph(graph, engine=engine, elements=len(refs))
    stopped, failures = marks.stopped(), marks.failures()
    if failures:
        name, message = next(iter(failures.items()))
        raise UsageError(f"{len(failures)} of {len(refs)} shards failed; run again to go on. {name}: {message}")
    if stopped:
        raise TooManyQuarantinedError(stopped)


class Graph(Protocol):
    """What puts its steps into a pipeline; `spread` asks for a shuffle that lets a cluster share out the elements."""

    def __call__(self, pipeline: beam.Pipeline, *, spread: bool) -> None:
        """Build the steps."""
        ...


def run_graph(graph: Graph, *, engine: Engine, elements: int) -> None:
    """Run a graph on an engine and wait for it; an engine that breaks down is a UsageError."""
    spread = not _in_this_process(engine)  # here a shuffle would only cost
    with _runner(engine, elements) as (runner, options):
        try:
            pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(options))
            graph(pipeline, spread=spread)
            state = pipeline.run().wait_until_finish()
        except Exception as error:
            if str(error).startswith(KeyboardInterrupt.__name__):  # Beam makes a RuntimeError of Ctrl-C
                raise KeyboardInterrupt from error
            if not spread:  # then it is not the engine that broke down
                raise
            raise UsageError(f"{_name(engine)} broke down; run again to go on: {_said(error)}") from error
    if state not in {PipelineState.DONE, None}:
        raise UsageError(f"{_name(engine)} ended as {state}; run again to go on")


def _in_this_process(engine: Engine) -> bool:
    return engine.runner is None and engine.workers == 1


def _name(engine: Engine) -> str:
    return engine.runner or "DaskRunner"


def _said(error: Exception) -> str:
    """Give an error's message as one line; of a worker's traceback, the last one."""
    text = str(error).strip() or repr(error)
    return text.splitlines()[-1].strip() if "Traceback" in text else " ".join(text.split())


@contextmanager
def _runner(engine: Engine, shards: int) -> Iterator[tuple[PipelineRunner, list[str]]]:
    """Choose the runner: one that is named, Dask on this machine for several workers, else this process."""
    options = list(engine.options)
    if engine.runner:
        try:
            runner = create_runner(engine.runner)
        except (ValueError, ImportError, AttributeError) as error:
            raise UsageError(f"Beam cannot give the runner '{engine.runner}' ({error})") from error
        yield runner, options
    elif _in_this_process(engine):
        yield FnApiRunner(), options
    else:
        with _dask(engine.workers) as (runner, address):
            yield runner, [*options, f"--dask_client_address={address}", f"--dask_npartitions={shards}"]


@contextmanager
def _dask(workers: int) -> Iterator[tuple[PipelineRunner, str]]:
    """Start worker processes on this machine; one that is killed is started again and its shard done again."""
    try:
        from apache_beam.runners.dask.dask_runner import DaskRunner  # noqa: PLC0415 - an extra
        from dask import config  # noqa: PLC0415
        from distributed import LocalCluster, default_client  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("dask", extra="dask") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    # A worker imports this file first, and so Beam without its warnings.
    quiet = {"silence_logs": logging.ERROR, "preload": [__name__]}
    # There is no dashboard, but its server starts all the same: on a free port that only this machine sees.
    quiet |= {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        config.set({"distributed.worker.multiprocessing-method": METHOD}),
        LocalCluster(n_workers=workers, threads_per_worker=1, **quiet) as cluster,
    ):
        try:
            yield DaskRunner(), cluster.scheduler_address
        finally:
            default_client().close()  # the runner leaves it open
