"""Chunks that inflate beyond their declared size, which the HDF5 library does not check."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.makers import write_hdf5
from tests.pipelines.readers.demos import DEMOS, details, edit, episodes, outcome, write_demos

h5py = pytest.importorskip("h5py", reason="the extra 'hdf5'")
ACTIONS = "data/demo_9/actions"


def deflated(count: int) -> bytes:
    """Deflate `count` MiB of zeros without having them in memory."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(count)), packer.flush()])


def with_chunk(data: bytes, **filters: Any) -> Callable[[Any], None]:
    """Replace one episode's actions with a handmade chunk."""

    def change(file: Any) -> None:
        del file[ACTIONS]
        made = file.create_dataset(ACTIONS, (400, 2), "f8", chunks=(400, 2), **filters)
        made.id.write_direct_chunk((0, 0), data)

    return change


def test_a_gzip_bomb_is_not_inflated(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    edit(file, with_chunk(deflated(1100), compression="gzip"))
    assert file.stat().st_size < 2 << 20
    assert outcome(file, episodes=DEMOS) == ["ok", "too_large", "ok"]
    assert "may inflate to more than its declared size" in details(file, episodes=DEMOS)


def test_a_large_chunk_of_lzf_with_unknown_size_is_not_read(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    edit(file, with_chunk(bytes(13 << 20), compression="lzf"))
    assert outcome(file, episodes=DEMOS) == ["ok", "too_large", "ok"]


def test_chunks_that_are_compressed_twice_are_refused(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")

    def twice(opened: Any) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4, 2))
        plist.set_deflate(4)
        plist.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (4,))
        del opened[ACTIONS]
        space = h5py.h5s.create_simple((4, 2))
        h5py.h5d.create(opened["data/demo_9"].id, b"actions", h5py.h5t.IEEE_F64LE, space, plist)

    edit(file, twice)
    assert outcome(file, episodes=DEMOS) == ["ok", "too_large", "ok"]
    assert "compressed twice" in details(file, episodes=DEMOS)


def test_large_chunks_that_are_honest_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 3 << 20), np.uint8)
    file = write_hdf5(tmp_path / "x.hdf5", {"data/demo_0": {"actions": np.zeros((4, 2))}})
    edit(
        file,
        lambda f: f.create_dataset(
            "data/demo_0/noise", data=values, chunks=(1, 3 << 20), compression="gzip", shuffle=True, fletcher32=True
        ),
    )
    (episode,) = episodes(file)
    assert np.array_equal(np.asarray(episode.steps["noise"]), values)
