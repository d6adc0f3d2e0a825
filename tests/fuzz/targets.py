"""One target per parser of foreign bytes: it returns, or raises one of our errors; anything else is a finding.

`python -m tests.fuzz.targets NAME` runs a target under atheris, if that is installed. `test_targets.py` runs all of
them as Hypothesis tests.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune import recipe
from pipelines.readers.boundary import source_errors
from pipelines.readers.documents import json_leaf, value_at
from pipelines.readers.files import tables
from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot import info
from pipelines.readers.rlds import example, features, tfrecord
from pipelines.readers.rosbag import jsonschema
from pipelines.readers.rosbag.bag import read_metadata
from pipelines.readers.rosbag.storage import inflate
from schemas import codec, images, parsing
from schemas.declarations import catalog, expr, robots, spec
from schemas.errors import OxeError
from schemas.mixture import filters, lock
from schemas.mixture import spec as mixture
from schemas.store.dataset import open_dataset
from schemas.store.index import Index
from schemas.text import masked, shown
from stats import formats

Target = Callable[[bytes], object]


@contextlib.contextmanager
def file(data: bytes, name: str) -> Iterator[Path]:
    """Yield the path of a file with these bytes, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield path


def text(data: bytes) -> str:
    return data.decode(errors="replace")


def source(name: str) -> Target:
    """Return a target that opens a source with one file of this name, and reads it."""

    def target(data: bytes) -> None:
        from pipelines.inspect.inspect import inspect

        with file(data, f"source/{name}") as path:
            inspect(str(path.parents[name.count("/")]))

    return target


def printed(data: bytes) -> None:
    line = shown(data.decode(errors="surrogateescape"))
    assert line.isprintable()
    assert shown(line) == line
    masked(text(data))


def parsed_json(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parsing.parse_json(data)


def parsed_toml(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parsing.parse_toml(text(data))


def records(data: bytes) -> None:
    with file(data, "x.tfrecord") as path, path.open("rb") as opened:
        list(tfrecord.offsets(opened, "x"))


def bag_metadata(data: bytes) -> None:
    with file(data, "metadata.yaml") as path:
        read_metadata(SourceFolder.at(str(path.parent)), path.name)


def lerobot_info(data: bytes) -> None:
    with file(data, "meta/info.json") as path:
        info.load(SourceFolder.at(str(path.parent.parent)))


def manifest(data: bytes) -> None:
    with file(data, "meta/manifest.json") as path:
        open_dataset(str(path.parent.parent))


def statistics(data: bytes) -> None:
    for name in ("dataset_statistics.json", "norm_stats.json", "stats.json"):
        with file(data, name) as path:
            formats.load(path)


def locked(data: bytes) -> None:
    with file(data, "x.lock") as path:
        lock.side_file(path).write_bytes(data)
        lock.read(path)


def config(data: bytes) -> None:
    from finetune.models.config import OpenVLAConfig

    with file(data, "config.json") as path:
        OpenVLAConfig.of(path.parent)


def inflated(data: bytes) -> None:
    for compression in ("zstd", "lz4", "bz2"):
        with source_errors():
            inflate(data, compression, limit=1 << 20)


TARGETS: dict[str, Target] = {
    "text": printed,
    "json": parsed_json,
    "toml": parsed_toml,
    "declaration": lambda data: spec.load(text(data), where="x", robot=catalog.robot),
    "embodiment": lambda data: robots.load(text(data), where="x"),
    "mixture": lambda data: mixture.load(text(data), where="x"),
    "recipe": lambda data: recipe.load(text(data), where="x"),
    "expression": lambda data: expr.parse(text(data)),
    "filter": lambda data: filters.parse(text(data)),
    "lock": locked,
    "statistics": statistics,
    "manifest": manifest,
    "config": config,
    "index": lambda data: Index.decode(data, "x"),
    "image header": images.sniff,
    "image": codec.decode,
    "features": lambda data: features.load(data, "x"),
    "example": lambda data: example.parse(memoryview(data)),
    "tfrecord": records,
    "lerobot info": lerobot_info,
    "bag metadata": bag_metadata,
    "json schema": lambda data: jsonschema.fields_of("x", text(data)),
    "json value": lambda data: json_leaf("x", value_at(text(data), ["a"], path="x")),
    "csv": lambda data: tables.table_fields(data, "x.csv"),
    "json lines": lambda data: tables.table_fields(data, "x.jsonl"),
    "json file": lambda data: tables.json_fields(data, prefix="", ignore=()),
    "inflate": inflated,
    **{f"source {name}": source(name) for name in ("a.hdf5", "a.mcap", "a.bag", "a.db3", "a.zarr.zip", "ep_1/a.npy")},
    **{f"source {name}": source(name) for name in ("ep_1/a.npz", "ep_1/a.parquet", "ep_1/a.csv", "ep_1/a.mp4")},
    **{f"source {name}": source(name) for name in (".zgroup", "zarr.json", "features.json", "meta/info.json")},
}


def run(name: str, data: bytes) -> None:
    """Run a target on these bytes; only our errors may be raised."""
    with contextlib.suppress(OxeError):
        TARGETS[name](data)


if __name__ == "__main__":
    import atheris

    chosen = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: run(chosen, data))
    atheris.Fuzz()
