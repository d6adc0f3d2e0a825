"""The two Beam graphs, and the runners that they run on.

Conversions and exports are Create(shards) -> ParDo(do one shard): only names and messages pass through it, for a
shard's outcome is the record it leaves. Statistics are Create(parts) -> ParDo(count one part) -> CombinePerKey(merge)
-> one file per key. Only the portable core of Beam is used.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pipelines.beam.counts import Mergeable, Work, results
from pipelines.beam.engine import Engine
from pipelines.beam.progress import POLL, POLL_REMOTE, Progress, silent, watched
from pipelines.beam.shards import Job, Marks, Shard, Worker
from pipelines.beam.workers import started
from schemas.errors import TooManyQuarantinedError, UsageError
from schemas.files.folder import open_folder

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


class Count(beam.DoFn):
    """Does the work on one part."""

    def __init__(self, work: Work) -> None:
        """Keep the work."""
        self.work = work

    def process(self, part: Any) -> Iterator[tuple[str, Mergeable]]:
        """Count one part."""
        yield from results(self.work, part)


class Merge(beam.CombineFn):
    """Merges what was counted under one key."""

    def create_accumulator(self) -> Mergeable | None:
        """Begin with nothing."""
        return None

    def add_input(self, accumulator: Mergeable | None, element: Mergeable) -> Mergeable:
        """Add one."""
        return element if accumulator is None else accumulator.merge(element)

    def merge_accumulators(self, accumulators: Iterable[Mergeable | None]) -> Mergeable | None:
        """Join several."""
        total: Mergeable | None = None
        for accumulator in accumulators:
            if accumulator is not None:
                total = self.add_input(total, accumulator)
        return total

    def extract_output(self, accumulator: Mergeable | None) -> Mergeable | None:
        """Give the sum."""
        return accumulator


class Write(beam.DoFn):
    """Writes each key's result to a file of its own."""

    def __init__(self, folder: str) -> None:
        """Keep the folder."""
        self.folder = folder

    def process(self, merged: tuple[str, Mergeable]) -> None:
        """Write one."""
        key, value = merged
        open_folder(self.folder, for_writing=True).write(f"{key}.json", json.dumps(value.to_json()).encode())


def run_merging(work: Work, parts: Sequence[Any], *, engine: Engine, into: str) -> None:
    """Do `work` on each part, and write the sum of each key to `into`, a folder's URI; wait for it."""

    def graph(pipeline: beam.Pipeline, *, spread: bool) -> None:
        counted = pipeline | "parts" >> beam.Create(list(parts), reshuffle=spread) | beam.ParDo(Count(work))
        merged = counted | "merge" >> beam.CombinePerKey(Merge())
        _ = merged | "write" >> beam.ParDo(Write(into))

    run_graph(graph, engine=engine, elements=len(parts))


class Graph(Protocol):
    """What puts its steps into a pipeline; `spread` asks for a shuffle that lets a cluster share out the elements."""

    def __call__(self, pipeline: beam.Pipeline, *, spread: bool) -> None:
        """Build the steps."""
        ...


def run_graph(graph: Graph, *, engine: Engine, elements: int) -> None:
    """Run a graph on an engine and wait for it; an engine that breaks down is a UsageError."""
    spread = not engine.is_this_process  # here a shuffle would only cost
    with started(engine) as running, _runner(running, elements) as (runner, options):
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


def _name(engine: Engine) -> str:
    return engine.runner or "DaskRunner"


def _said(error: Exception) -> str:
    """Give an error's message as one line; of a worker's traceback, the last one."""
    text = str(error).strip() or repr(error)
    return text.splitlines()[-1].strip() if "Traceback" in text else " ".join(text.split())


@contextmanager
def _runner(engine: Engine, elements: int) -> Iterator[tuple[PipelineRunner, list[str]]]:
    """Choose the runner: one that is named, Dask for a cluster, else this process."""
    options = list(engine.options)
    if engine.runner:
        try:
            runner = create_runner(engine.runner)
        except (ValueError, ImportError, AttributeError) as error:
            raise UsageError(f"Beam cannot give the runner '{engine.runner}' ({error})") from error
        yield runner, options
    elif engine.cluster:
        from apache_beam.runners.dask.dask_runner import DaskRunner  # noqa: PLC0415 - an extra
        from distributed import default_client  # noqa: PLC0415

        try:
            yield DaskRunner(), [*options, f"--dask_client_address={engine.cluster}", f"--dask_npartitions={elements}"]
        finally:
            default_client().close()  # the runner leaves it open
    else:
        yield FnApiRunner(), options
