"""The conversion of shards by several workers, whose quarantined episodes are counted together."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.convert.convert import Conversion
from pipelines.convert.job import ConversionJob, ConversionWorker
from pipelines.convert.ledger import begin
from pipelines.convert.records import Options
from pipelines.readers.reader import ShardRef
from schemas.declarations import catalog
from schemas.files.folder import open_folder
from tests.pipelines.toy import columns, make_toy, oxe_process

BAD = {"action": np.full((3, 4), np.nan, np.float32)}


def two_workers(
    folder: Path, *, allowed: int | None
) -> tuple[ConversionWorker, ConversionWorker, tuple[ShardRef, ...]]:
    """Plan three shards, each with one episode that cannot be read, and open them on two workers."""
    toy = make_toy(folder, [columns(seed, **BAD) for seed in range(3)], splits={"s0": 1, "s1": 1, "s2": 1})
    spec, out = catalog.dataset(str(toy.spec)), open_folder(toy.out, for_writing=True)
    planned = Conversion.of(spec, out, source=str(toy.source), options=Options())
    begin(out, planned.identity)
    job = ConversionJob(
        declaration=spec.to_json(),
        source=str(toy.source),
        out=str(toy.out),
        options=Options(),
        max_quarantine=allowed,
    )
    return job.open(), job.open(), planned.refs


def test_the_shard_that_makes_it_too_many_stops_all_workers(tmp_path: Path) -> None:
    first, second, refs = two_workers(tmp_path, allowed=1)
    assert first.shard(refs[0]) is None
    assert first.ledger.stop_reason() is None
    assert second.shard(refs[1]) is None
    assert str(first.ledger.stop_reason()).startswith("2 episodes cannot be read, 1 are allowed; episode 1: ")
    assert first.shard(refs[2]) is None
    assert first.ledger.finished() == {refs[0].name, refs[1].name}  # the third was not started


@pytest.mark.parametrize("allowed", [3, None])
def test_as_many_as_are_allowed_stop_nobody(allowed: int | None, tmp_path: Path) -> None:
    first, second, refs = two_workers(tmp_path, allowed=allowed)
    for worker, ref in zip((first, second, first), refs, strict=True):
        assert worker.shard(ref) is None
    assert first.ledger.finished() == {ref.name for ref in refs}
    assert first.ledger.stop_reason() is None


@pytest.mark.slow
def test_worker_processes_stop_within_a_shard_of_the_limit(tmp_path: Path) -> None:
    """They finish shards faster than their progress could be polled."""
    shards, allowed, workers = 20, 3, 2
    bad = [columns(seed, **BAD) for seed in range(shards)]
    toy = make_toy(tmp_path, bad, splits={f"s{i:02d}": 1 for i in range(shards)})
    words = ("--max-quarantine", str(allowed), "--workers", str(workers))
    done = oxe_process("convert", toy.spec, "--source", toy.source, "--out", toy.out, *words)
    assert done.code == 2
    assert f" episodes cannot be read, {allowed} are allowed; episode " in done.err
    assert allowed < len(list((toy.out / "meta/ledger").glob("*.parquet"))) <= allowed + workers
