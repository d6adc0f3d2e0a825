"""The two Beam graphs and the runners that execute them.

Conversions and exports run the graph Create(shards) -> ParDo(process one shard). Workers write a record for each
finished shard, so only names and messages pass through Beam.

Statistics run the graph Create(parts) -> ParDo(count one part) -> CombinePerKey(merge) -> ParDo(write one key).

Both graphs use only the portable core of Beam.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pipelines.beam.counts import CountFunction, Mergeable, count_part
from pipelines.beam.engine import Engine
from pipelines.beam.progress import POLL, POLL_REMOTE, Progress, report_progress, silent
from pipelines.beam.shards import Job, Shard, StatusFolder, Worker
from pipelines.beam.workers import running_workers
from schemas.errors import TooManyQuarantinedError, UsageError
from schemas.files.folder import open_folder

logging.disable(logging.WARNING)  # without Beam's warnings about Google Cloud libraries
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # noqa: E402
from apache_beam.runners.runner import PipelineRunner, PipelineState, create_runner  # noqa: E402

logging.disable(logging.NOTSET)
logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # Beam logs every error that it also raises


class DoShard(beam.DoFn):
    """Processes shards, with one opened job per worker; yields each shard's name and its error message or None."""

    def __init__(self, job: Job) -> None:
        """Store the job; each worker opens it."""
        self.job = job
        self.worker: Worker | None = None

    def setup(self) -> None:
        """Open the job once per worker."""
        self.worker = self.job.open()

    def process(self, ref: Any) -> Iterator[tuple[str, str | None]]:
        """Process one shard.

        `ref` is annotated as `Any`, because Beam checks annotations at run time and cannot check a protocol.
        """
        worker = self.worker or self.job.open()
        yield ref.name, worker.shard(ref)


def run(job: Job, refs: Sequence[Shard], status: StatusFolder, *, engine: Engine, progress: Progress = silent) -> None:
    """Process shards on an engine and wait until it is done; the workers write records and failures to `status`.

    Raises UsageError if a shard failed in all its attempts or if the engine broke down. If several shards failed, the
    message names the first. Raises TooManyQuarantinedError if more episodes were quarantined than the job allows.
    """

    def graph(pipeline: beam.Pipeline, *, spread: bool) -> None:
        shards = pipeline | "shards" >> beam.Create(list(refs), reshuffle=spread)
        _ = shards | "work" >> beam.ParDo(DoShard(job))

    every = POLL if status.out.local else POLL_REMOTE
    with report_progress(status.finished, refs, progress, workers=engine.workers, every=every):
        run_graph(graph, engine=engine, elements=len(refs))
    stop_reason, failures = status.stop_reason(), status.failures()
    if failures:
        name, message = next(iter(failures.items()))
        raise UsageError(
            f"{len(failures)} of {len(refs)} shards failed, first {name}: {message}; run the command again to continue"
        )
    if stop_reason:
        raise TooManyQuarantinedError(stop_reason)


class CountPart(beam.DoFn):
    """Counts one part."""

    def __init__(self, count: CountFunction) -> None:
        """Store the function."""
        self.count = count

    def process(self, part: Any) -> Iterator[tuple[str, Mergeable]]:
        """Count one part."""
        yield from count_part(self.count, part)


class Merge(beam.CombineFn):
    """Merges the results of one key."""

    def create_accumulator(self) -> Mergeable | None:
        """Return an empty accumulator, which is None."""
        return None

    def add_input(self, accumulator: Mergeable | None, element: Mergeable) -> Mergeable:
        """Merge one result."""
        return element if accumulator is None else accumulator.merge(element)

    def merge_accumulators(self, accumulators: Iterable[Mergeable | None]) -> Mergeable | None:
        """Merge several accumulators."""
        total: Mergeable | None = None
        for accumulator in accumulators:
            if accumulator is not None:
                total = self.add_input(total, accumulator)
        return total

    def extract_output(self, accumulator: Mergeable | None) -> Mergeable | None:
        """Return the total."""
        return accumulator


class Write(beam.DoFn):
    """Writes the total of each key to its own file."""

    def __init__(self, folder: str) -> None:
        """Store the folder's URI."""
        self.folder = folder

    def process(self, merged: tuple[str, Mergeable]) -> None:
        """Write the total of one key."""
        key, value = merged
        folder = open_folder(self.folder, for_writing=True)
        folder.write(f"{key}.json", json.dumps(value.to_json()).encode(), sync=False)


def run_merging(count: CountFunction, parts: Sequence[Any], *, engine: Engine, into: str) -> None:
    """Call `count` on each part and merge the results by key; returns when all totals are written.

    The total of each key is written to its own file in the folder with the URI `into`.
    """

    def graph(pipeline: beam.Pipeline, *, spread: bool) -> None:
        counted = pipeline | "parts" >> beam.Create(list(parts), reshuffle=spread) | beam.ParDo(CountPart(count))
        merged = counted | "merge" >> beam.CombinePerKey(Merge())
        _ = merged | "write" >> beam.ParDo(Write(into))

    run_graph(graph, engine=engine, elements=len(parts))


class Graph(Protocol):
    """A function that adds steps to a pipeline.

    With `spread`, it adds a shuffle, so that a cluster can distribute the elements over its machines.
    """

    def __call__(self, pipeline: beam.Pipeline, *, spread: bool) -> None:
        """Add the steps."""
        ...


def run_graph(graph: Graph, *, engine: Engine, elements: int) -> None:
    """Run a graph on an engine and wait until it is done; raises UsageError if the engine breaks down."""
    spread = not engine.is_this_process  # in a single process, a shuffle would only cost time
    with running_workers(engine) as running, _runner(running, elements) as (runner, options):
        try:
            pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(options))
            graph(pipeline, spread=spread)
            state = pipeline.run().wait_until_finish()
        except Exception as error:
            if str(error).startswith(KeyboardInterrupt.__name__):  # Beam turns Ctrl-C into a RuntimeError
                raise KeyboardInterrupt from error
            if not spread:  # an error of this process, not of an engine
                raise
            raise UsageError(
                f"{_runner_name(engine)} broke down: {_one_line(error)}; run the command again to continue"
            ) from error
    if state not in {PipelineState.DONE, None}:
        raise UsageError(f"{_runner_name(engine)} ended with state {state}; run the command again to continue")


def _runner_name(engine: Engine) -> str:
    return engine.runner or "DaskRunner"


def _one_line(error: Exception) -> str:
    """Return an error's message as one line; if it contains a traceback, only the last line is returned."""
    text = str(error).strip() or repr(error)
    return text.splitlines()[-1].strip() if "Traceback" in text else " ".join(text.split())


@contextmanager
def _runner(engine: Engine, elements: int) -> Iterator[tuple[PipelineRunner, list[str]]]:
    """Yield the runner and its options.

    The runner is the one that the engine names, else Dask if the engine has a cluster, else a runner in this process.
    """
    options = list(engine.options)
    if engine.runner:
        try:
            runner = create_runner(engine.runner)
        except (ValueError, ImportError, AttributeError) as error:
            raise UsageError(f"Beam cannot create the runner '{engine.runner}': {error}") from error
        yield runner, options
    elif engine.cluster:
        from apache_beam.runners.dask.dask_runner import DaskRunner  # noqa: PLC0415 - an extra
        from distributed import default_client  # noqa: PLC0415

        try:
            yield DaskRunner(), [*options, f"--dask_client_address={engine.cluster}", f"--dask_npartitions={elements}"]
        finally:
            default_client().close()  # the runner does not close its client
    else:
        yield FnApiRunner(), options
