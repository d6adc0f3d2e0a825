"""A small source that can be damaged in every way, its declaration, and the command line."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import simplejpeg

from oxe_tools.cli.main import main
from pipelines.export.rlds.writer import RldsFeature, TfRecordWriter, features_json, info_json
from schemas.source import Column, Field
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
SPEC = """
name       = "toy"
control_hz = 10
language   = "language_instruction"

[embodiment]
name       = "toy_arm"
robot      = "toy"
controller = "eef_delta"

[embodiment.state]
origin = "achieved"
frame  = "base"
parts  = { xyz = { kind = "position", dims = ["x", "y", "z"], unit = "m", mode = "absolute" } }

[embodiment.action]
origin  = "commanded"
frame   = "base"
gripper = "open_is_1"

[embodiment.action.parts]
xyz     = { kind = "position", dims = ["x", "y", "z"], unit = "m", mode = "delta" }
gripper = { kind = "gripper", dims = ["gripper"], unit = "1", mode = "absolute" }

[cameras]
primary = "observation.image"

[state]
xyz = "observation.state"

[action]
xyz     = "action[:3]"
gripper = "action[3:]"

[views.late]
before = ["drop_first(1)"]
"""
FIELDS = (
    Field(path="action", kind="number", dtype="float32", shape=(4,)),
    Field(path="observation.state", kind="number", dtype="float32", shape=(3,)),
    Field(path="observation.image", kind="image", dtype="uint8", shape=(None, None, 3), encoding="jpeg"),
    Field(path="observation.torque", kind="number", dtype="float64", shape=(2,)),
    Field(path="language_instruction", kind="text"),
    Field(path="is_first", kind="number", dtype="bool"),
    Field(path="is_last", kind="number", dtype="bool"),
    Field(path="episode_metadata.file_path", kind="text", per_step=False),
)

Columns = dict[str, Column]


@cache
def jpeg(seed: int, *, size: int = 8) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return simplejpeg.encode_jpeg(noise, quality=90)


def columns(seed: int = 0, *, steps: int = 3, size: int = 8, **changes: Column) -> Columns:
    """Create one episode; `changes` maps the last part of a column's path to other values."""
    rng = np.random.default_rng(seed)
    made: Columns = {
        "action": rng.normal(size=(steps, 4)).astype(np.float32),
        "observation.state": rng.normal(size=(steps, 3)).astype(np.float32),
        "observation.image": [jpeg(100 * seed + step, size=size) for step in range(steps)],
        "observation.torque": rng.normal(size=(steps, 2)),
        "language_instruction": [f"task {seed} ☂".encode()] * steps,
        "is_first": np.arange(steps) == 0,
        "is_last": np.arange(steps) == steps - 1,
        "episode_metadata.file_path": [f"e{seed}.hdf5".encode()],
    }
    places = {path.rsplit(".", 1)[-1]: path for path in made}
    return made | {places[name]: column for name, column in changes.items()}


def write_source(
    folder: Path,
    episodes: Sequence[Mapping[str, Column]],
    *,
    splits: Mapping[str, int | Sequence[int]] | None = None,
    fields: Sequence[Field] = FIELDS,
) -> Path:
    """Write episodes as RLDS without TensorFlow or checks; `splits` has the number of episodes of each shard."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = list(episodes)
    shards: dict[str, list[TfRecordWriter]] = {}
    for split, counts in (splits or {"train": len(rest)}).items():
        each = [counts] if isinstance(counts, int) else counts
        shards[split] = []
        for number, count in enumerate(each):
            shard = TfRecordWriter(folder / f"toy-{split}.tfrecord-{number:05d}-of-{len(each):05d}")
            for episode in rest[:count]:
                shard.add({RldsFeature(field): episode[field.path] for field in fields})
            shard.file.close()
            shards[split].append(shard)
            rest = rest[count:]
    (folder / "features.json").write_text(features_json([RldsFeature(field) for field in fields]))
    (folder / "dataset_info.json").write_text(info_json("toy", shards, version="1.0.0", description=""))
    return folder


def write_spec(folder: Path, *, replace: Mapping[str, str] | None = None, extra: str = "") -> Path:
    """Write the declaration next to the source, with some of its text replaced."""
    text = SPEC
    for old, new in (replace or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "toy.toml"
    path.write_text(text + extra)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """A folder with a source, its declaration and the output path of the dataset."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def spec(self) -> Path:
        return self.folder / "toy.toml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def convert(self, *more: str) -> "Run":
        return oxe("convert", self.spec, "--source", self.source, "--out", self.out, *more)

    def verify(self, *more: str) -> "Run":
        return oxe("verify", self.out, *more)

    def balance(self) -> dict[str, Any]:
        balance: dict[str, Any] = json.loads((self.out / "meta/manifest.json").read_text())["balance"]
        left_out = sum(balance["dropped"].values()) + sum(balance["quarantined"].values())
        assert balance["source"] == balance["kept"] + left_out
        return balance

    def quarantine(self) -> list[dict[str, Any]]:
        return list(pq.read_table(self.out / "meta/quarantine.parquet").to_pylist())


def make_toy(folder: Path, episodes: Sequence[Mapping[str, Column]] | None = None, **arguments: Any) -> Toy:
    """Write a source, by default of three episodes, and its declaration."""
    toy = Toy(folder=folder)
    write_source(toy.source, episodes if episodes is not None else [columns(seed) for seed in range(3)], **arguments)
    write_spec(folder)
    return toy


# The command line


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Parse stdout as one JSON object, strictly."""

        def refuse(word: str) -> None:
            raise ValueError(f"{word} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


def oxe(*args: str | Path) -> Run:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([str(arg) for arg in args])
    except SystemExit as end:
        code = end.code or 0
    return Run(code=code, out=out.getvalue(), err=err.getvalue())


def command(*args: str | Path) -> list[str]:
    """Return the path of the installed command."""
    return [str(Path(sys.executable).with_name("oxe")), *map(str, args)]


def oxe_process(*args: str | Path, cwd: Path | None = None, **more: Any) -> Run:
    """Run the installed command in a new process."""
    done = subprocess.run(
        command(*args), capture_output=True, text=True, cwd=cwd, check=False, timeout=PATIENCE, **more
    )
    return Run(code=done.returncode, out=done.stdout, err=done.stderr)


def files(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
