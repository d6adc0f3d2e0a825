"""Datasets and locks for the benchmarks of the loader."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from generate import SET_L, BenchSet, ensure

from pipelines.convert.convert import convert
from pipelines.mix.make import make_lock
from schemas.declarations import catalog
from schemas.mixture import lock
from schemas.mixture import spec as mixture

PARTS = 8
SMALL = replace(SET_L, seed=6, shards=2, episodes=250, steps=100, pixels=16)  # 50,000 steps
LARGE = replace(SMALL, shards=40)  # 1,000,000 steps


def folder(data: Path) -> Path:
    """Return the folder of all sets."""
    return data / "loader"


def frames(data: Path) -> Path:
    """Write set L as one and as eight datasets, and the locks `one` and `eight`."""
    root = folder(data)
    source = ensure(SET_L, data)
    for number in range(PARTS):
        _converted(_part(source, root / f"rlds_{number}", number), root / f"part_{number}")
    _converted(source, root / "whole")
    _locked(root, "one", {"whole": "whole"})
    _locked(root, "eight", {f"part_{number}": f"part_{number}" for number in range(PARTS)})
    return root


def single(data: Path) -> Path:
    """Write set L as one dataset, and its lock `single`."""
    root = folder(data)
    _converted(ensure(SET_L, data), root / "single")
    _locked(root, "single", {"single": "single"})
    return root


def tiny(data: Path, which: BenchSet, name: str) -> Path:
    """Write a set of tiny images and its lock `name`."""
    root = folder(data)
    source = ensure(which, root / f"rlds_{name}")
    _converted(source, root / name)
    _locked(root, name, {name: name})
    return root


def _part(source: Path, out: Path, number: int) -> Path:
    """Copy one eighth of the files of an RLDS folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copyfile(source / "features.json", out / "features.json")
    files = sorted(source.glob("*.tfrecord-*"))[number::PARTS]
    for i, path in enumerate(files):
        shutil.copyfile(path, out / f"{SET_L.name}-train.tfrecord-{i:05d}-of-{len(files):05d}")
    info = json.loads((source / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = [str(SET_L.episodes)] * len(files)
    (out / "dataset_info.json").write_text(json.dumps(info))
    return out


def _converted(source: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    convert(catalog.dataset(str(SET_L.declaration)), out, source=str(source))


def _locked(root: Path, name: str, sources: Mapping[str, str]) -> None:
    """Lock a mixture in which every step has the same probability."""
    weights = "".join(f"{source} = 1.0\n" for source in sources)
    places = "".join(f'{source} = {{ uri = "{uri}" }}\n' for source, uri in sources.items())
    text = f'name = "{name}"\nview = "openvla"\nweighting = "relative"\n[weights]\n{weights}[sources]\n{places}'
    made, table = make_lock(mixture.load(text, where=name), beside=root)
    lock.write(root / f"{name}.lock", made, table)
