"""Small files that declare enormous contents are refused before memory is taken for them."""

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.inspect.inspect import inspect
from schemas.errors import OxeError
from tests import bags
from tests.lerobot import edit_info
from tests.makers import write_hdf5
from tests.pipelines.readers.demos import make_demo
from tests.pipelines.readers.writers import WRITERS
from tests.pipelines.toy import ROOT

MEMORY = 700 << 20  # bytes that reading one bomb may take, far below what each declares


def hdf5_shape(folder: Path) -> None:
    """A dataset that declares 0.9 GiB and stores nothing, 16 times."""
    write_hdf5(folder / "demo.h5", {"data/demo_0": make_demo()})
    with h5py.File(folder / "demo.h5", "a") as file:
        for i in range(16):
            file.create_dataset(f"data/demo_0/obs/more_{i}", shape=(4, 30_000_000), dtype="f8", chunks=(1, 1_000_000))


def hdf5_value(folder: Path) -> None:
    """A value of the episode of 80 GB."""
    write_hdf5(folder / "demo.h5", {"data/demo_0": make_demo()})
    with h5py.File(folder / "demo.h5", "a") as file:
        file["data/demo_0"].create_dataset("model", shape=(), dtype=np.dtype(("f8", (100_000, 1000))))


def hdf5_names(folder: Path) -> None:
    """More datasets than a source may have fields."""
    write_hdf5(folder / "demo.h5", {"data/demo_0": make_demo()})
    with h5py.File(folder / "demo.h5", "a") as file:
        for i in range(10_100):
            file["data/demo_0"].create_group(f"g{i}")


def hdf5_attributes(folder: Path) -> None:
    """More attributes than a source may have fields."""
    write_hdf5(folder / "demo.h5", {"data/demo_0": make_demo()})
    with h5py.File(folder / "demo.h5", "a", libver="latest") as file:
        for i in range(10_100):
            file["data/demo_0"].attrs[f"a{i}"] = i


def npy_header(folder: Path) -> None:
    write_npy(folder / "episode_0" / "action.npy", (1 << 40, 7))
    write_npy(folder / "episode_1" / "action.npy", (1 << 40, 7))


def npz_header(folder: Path) -> None:
    for i in range(2):
        (folder / f"episode_{i}").mkdir(parents=True)
        with zipfile.ZipFile(folder / f"episode_{i}" / "data.npz", "w") as archive:
            archive.writestr("action.npy", npy_bytes((1 << 34,)))


def npz_zeros(folder: Path) -> None:
    """A member of 90 kB that inflates to 88 MB."""
    for i in range(2):
        (folder / f"episode_{i}").mkdir(parents=True)
        archive = zipfile.ZipFile(folder / f"episode_{i}" / "data.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        with archive, archive.open("action.npy", "w", force_zip64=True) as file:
            file.write(npy_bytes((11_000_000,)))
            for _ in range(11):
                file.write(b"\0" * 8_000_000)


def npz_overlap(folder: Path) -> None:
    """Two thousand members that share the bytes of one, 20 GB in total."""
    out = io.BytesIO()
    data = npy_bytes((1_250_000,)) + b"\0" * 10_000_000
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("action.npy", data)
    plain = out.getvalue()
    directory = plain.index(b"PK\1\2")
    end = plain.index(b"PK\5\6")
    entry = plain[directory:end]
    entries = b"".join(entry[:46] + f"a{i:05d}.npy".encode() + entry[56:] for i in range(2000))
    tail = plain[end : end + 8] + struct.pack("<HHIIH", 2000, 2000, len(entries), directory, 0)
    for i in range(2):
        (folder / f"episode_{i}").mkdir(parents=True)
        (folder / f"episode_{i}" / "data.npz").write_bytes(plain[:directory] + entries + tail)


def zarr_shape(folder: Path) -> None:
    """An array of 1 TB whose chunks are missing."""
    WRITERS["zarr 2"](folder)
    file = folder / "data" / "action" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [1 << 36, 4]}))


def zarr_chunk(folder: Path) -> None:
    """A chunk of 64 GB."""
    WRITERS["zarr 2"](folder)
    file = folder / "data" / "action" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chunks": [1 << 30, 4], "shape": [15, 4]}))


def zarr_inflated(folder: Path) -> None:
    """A chunk that inflates to more than it declares."""
    WRITERS["zarr 2"](folder)
    below = folder / "data" / "action"
    described = json.loads((below / ".zarray").read_text())
    (below / ".zarray").write_text(json.dumps(described | {"compressor": {"id": "zlib", "level": 1}}))
    for chunk in below.glob("[0-9]*"):
        chunk.write_bytes(zlib.compress(b"\0" * 100_000_000, 1))


def rlds_shape(folder: Path) -> None:
    """A feature whose declared shape has 2**60 values."""
    WRITERS["rlds"](folder)
    text = (folder / "features.json").read_text()
    assert '"4"' in text
    (folder / "features.json").write_text(text.replace('"4"', f'"{1 << 60}"'))


def lerobot_features(folder: Path) -> None:
    WRITERS["lerobot v2.1"](folder)
    more = {f"f{i}": {"dtype": "float32", "shape": [1]} for i in range(200_000)}
    edit_info(folder, features=json.loads((folder / "meta/info.json").read_text())["features"] | more)


def lerobot_tasks(folder: Path) -> None:
    """A table of tasks of 3 MB that takes gigabytes of memory."""
    WRITERS["lerobot v3.0"](folder)
    table = pa.table({"task_index": np.zeros(8_000_000, np.int64), "task": pa.repeat("a" * 50, 8_000_000)})
    pq.write_table(table, folder / "meta/tasks.parquet", compression="zstd", row_group_size=1 << 30)


def parquet_rows(folder: Path) -> None:
    """A table of 40 million rows in 100 kB."""
    folder.mkdir(parents=True)
    table = pa.table({"action": np.zeros(4_000_000)})
    with pq.ParquetWriter(folder / "episode_0.parquet", table.schema, compression="zstd") as out:
        for _ in range(10):
            out.write_table(table, row_group_size=4_000_000)
    (folder / "episode_1.parquet").write_bytes((folder / "episode_0.parquet").read_bytes())


def json_keys(folder: Path) -> None:
    for i in range(2):
        place = folder / f"episode_{i}"
        place.mkdir(parents=True)
        (place / "meta.json").write_text(json.dumps({f"key_{k}": k for k in range(300_000)}))
        (place / "steps.jsonl").write_text('{"action": 1.5}\n' * 3)


def csv_columns(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i in range(2):
        head = ",".join(f"c{k}" for k in range(100_000))
        (folder / f"episode_{i}.csv").write_text(f"{head}\n{','.join(['1'] * 100_000)}\n")


def image_pixels(folder: Path) -> None:
    """JPEGs of 4,295 million pixels."""
    WRITERS["folders"](folder)
    for file in folder.rglob("*.jpg"):
        data = bytearray(file.read_bytes())
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = b"\xff\xff\xff\xff"
        file.write_bytes(data[:-2])


def ros_fields(folder: Path) -> None:
    """A message type with 8,192 arrays."""
    folder.mkdir()
    number = {"type": "object", "properties": {f"f{i}": {"type": "number"} for i in range(50_000)}}
    said = [bags.Said("/action", {"f0": 1.0}, 10 * i) for i in range(3)]
    bags.write_json(folder / "take.mcap", {"/action": ("Floats", number)}, said)


def mcap_chunk(folder: Path) -> None:
    """A chunk that says it inflates to 2**60 bytes."""
    WRITERS["mcap"](folder)
    for file in folder.glob("*.mcap"):
        data = bytearray(file.read_bytes())
        chunk = data.index(b"\x06", 8)  # opcode of the first chunk
        data[chunk + 9 + 16 : chunk + 9 + 24] = struct.pack("<Q", 1 << 60)
        file.write_bytes(data)


def gzipped(folder: Path) -> None:
    """A shard of zeros that gzip makes small."""
    WRITERS["rlds"](folder)
    for file in folder.glob("*.tfrecord*"):
        file.write_bytes(gzip.compress(b"\0" * 200_000_000, 1))


def write_npy(file: Path, shape: tuple[int, ...]) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(npy_bytes(shape) + b"\0" * 64)


def npy_bytes(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue()


BOMBS: dict[str, Callable[[Path], None]] = {
    write.__name__: write
    for write in (
        *(hdf5_shape, hdf5_value, hdf5_names, hdf5_attributes, npy_header, npz_header, npz_zeros, npz_overlap),
        *(zarr_shape, zarr_chunk, zarr_inflated, rlds_shape, lerobot_features, lerobot_tasks),
        *(parquet_rows, json_keys, csv_columns, image_pixels, ros_fields, mcap_chunk, gzipped),
    )
}


SLOW = {"hdf5_attributes"}  # to write


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in BOMBS])
def test_a_bomb_is_refused_with_little_memory(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    BOMBS[name](source)
    words = [sys.executable, "-m", "tests.fuzz.test_bombs", str(source)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["errors"], "the bomb was read without notice"
    assert result["bytes"] < MEMORY, result


def measure(source: str) -> dict[str, object]:
    """Inspect a source; return the errors, and the memory that it took."""
    import resource

    for module in ("av", "h5py", "zarr", "rosbags.highlevel", "mcap.reader", "pyarrow.parquet"):
        __import__(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        inspection = inspect(source)
        errors = [*inspection.unreadable, *inspection.notes]
    except OxeError as error:
        errors = [str(error)]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"errors": errors, "bytes": (after - before) << 10}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
