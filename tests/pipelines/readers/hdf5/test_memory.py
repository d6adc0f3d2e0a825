"""Reading a 4 GiB file takes little memory in any layout; the size of one episode is limited."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas import limits
from tests.makers import PEAK, write_hdf5
from tests.pipelines.readers.demos import declare, details, edit, outcome, write_demos

h5py = pytest.importorskip("h5py", reason="the extra 'hdf5'")
FRAME = (720, 1280, 3)
FRAMES = (4 << 30) // int(np.prod(FRAME)) + 1
MEASURED = f"""
import sys
from pipelines.convert.convert import convert
from schemas.declarations import catalog
report = convert(catalog.dataset(sys.argv[1]), sys.argv[2], source=sys.argv[3])
print(report.kept, report.steps, {PEAK} >> 10)
"""


def write_frames(group: Any, count: int, *, chunks: tuple[int, ...] | None) -> None:
    """Add `count` black frames without writing any: missing chunks and the holes of a sparse file read as zeros."""
    group["actions"] = np.zeros((count, 2))
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        how.set_chunk(chunks)
        how.set_deflate(1)
    else:
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((count, *FRAME))
    h5py.h5d.create(group.id, b"image", h5py.h5t.STD_U8LE, space, how)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("episodes", "chunks"),
    [(1, None), (8, None), (1, (4, *FRAME))],
    ids=["one episode, contiguous", "eight episodes, contiguous", "one episode, chunks of gzip"],
)
def test_four_gib_are_converted_in_a_small_part_of_that(
    tmp_path: Path, episodes: int, chunks: tuple[int, ...] | None
) -> None:
    file = write_hdf5(tmp_path / "x.hdf5", {f"data/demo_{i}": {} for i in range(episodes)})
    for i in range(episodes):
        edit(file, lambda f, i=i: write_frames(f[f"data/demo_{i}"], FRAMES // episodes, chunks=chunks))
    assert chunks or file.stat().st_size > 3.9 * (1 << 30)
    spec = declare(tmp_path, '{ format = "hdf5", episodes = "data/demo_*", images = "jpeg 90" }')
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, spec, tmp_path / "out", file], capture_output=True, text=True, check=True
    )
    kept, steps, megabytes = map(int, done.stdout.split())
    assert (kept, steps) == (episodes, FRAMES // episodes * episodes)
    assert megabytes < 600


def test_a_camera_of_more_encoded_bytes_than_an_episode_may_have_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.readers.hdf5 import columns

    file = write_demos(tmp_path / "x.hdf5")
    large = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    edit(file, lambda f: [f["data/demo_9/obs"].__delitem__("agentview_image"), f.__setitem__(IMAGE, large)])
    monkeypatch.setattr(columns, "COLUMN_BYTES", 30_000)
    assert outcome(file) == ["ok", "too_large", "ok"]
    assert "obs.agentview_image: more than 30000 bytes in one episode" in details(file)


IMAGE = "data/demo_9/obs/agentview_image"


def test_a_column_of_more_numbers_than_an_episode_may_have_is_counted(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    rows = limits.COLUMN_BYTES // 16 + 1

    def widen(opened: Any) -> None:
        del opened["data/demo_9/actions"]
        opened.create_dataset("data/demo_9/actions", (rows, 2), "f8")  # contiguous, never written

    edit(file, widen)
    assert outcome(file) == ["ok", "too_large", "ok"]
