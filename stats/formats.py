"""Statistics in the files that trainers read, ours, OpenVLA's, LeRobot's and openpi's, each known by its content."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from schemas.errors import StatsError
from schemas.source import Array
from stats.norm import KNOWN, NormStats
from stats.record import FORMAT, Statistics
from stats.summary import Summary

Form: TypeAlias = Literal["native", "openvla", "lerobot", "openpi"]
Norms: TypeAlias = dict[str, dict[str, NormStats]]  # dataset ("" where the file names none) -> action, state -> figures
SPELLINGS = {"q01": ("q01", "p01"), "q99": ("q99", "p99")}  # Octo and open-pi-zero say p01
OPENVLA = {"action": "action", "state": "proprio"}
LEROBOT = {"action": "action", "state": "observation.state"}
OPENPI = {"action": "actions", "state": "state"}
CHECKPOINT = (
    "dataset_statistics.json",
    "config.json",
    "norm_stats.json",
    "stats.json",
    "meta/stats.json",
    "assets/*/norm_stats.json",
    "assets/*/*/norm_stats.json",
)


# Writing


def openvla(found: Statistics) -> dict[str, Any]:
    """Give `dataset_statistics.json`: an action with a mask, a proprio without, and the counts."""
    figures = ("mean", "std", "max", "min", "q01", "q99")
    vectors = {
        theirs: _lists(found.vectors[ours], figures) for ours, theirs in OPENVLA.items() if ours in found.vectors
    }
    vectors["action"]["mask"] = found.vectors["action"].mask.tolist()
    return {found.name: {**vectors, "num_transitions": found.steps, "num_trajectories": found.episodes}}


def lerobot(found: Statistics) -> dict[str, Any]:
    """Give `meta/stats.json` of LeRobot v3, with quantiles of the whole dataset and not averages over episodes."""
    figures = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
    return {
        theirs: {**_lists(found.vectors[ours], figures), "count": [found.vectors[ours].count]}
        for ours, theirs in LEROBOT.items()
        if ours in found.vectors
    }


def openpi(found: Statistics) -> dict[str, Any]:
    """Give openpi's `norm_stats.json`."""
    figures = ("mean", "std", "q01", "q99")
    named = {theirs: _lists(found.vectors[ours], figures) for ours, theirs in OPENPI.items() if ours in found.vectors}
    return {"norm_stats": named}


def _lists(summary: Summary, figures: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(summary, name).tolist() for name in figures}


FORMS: dict[str, Callable[[Statistics], dict[str, Any]]] = {
    "native": Statistics.to_json,
    "openvla": openvla,
    "lerobot": lerobot,
    "openpi": openpi,
}


def encode(found: Statistics, form: Form) -> bytes:
    """Write statistics as one of the files, the same bytes each time."""
    return json.dumps(FORMS[form](found), indent=2).encode() + b"\n"


# Reading


def load(path: Path) -> Norms:
    """Read a file of any of the forms, or find one in a checkpoint's folder; what is none of them is a StatsError."""
    if path.is_dir():
        files = [file for pattern in CHECKPOINT for file in sorted(path.glob(pattern))]
        found = [norms for file in files if (norms := _read(file, optional=True))]
        if not found:
            raise StatsError(f"{path}: holds no statistics that are known here ({', '.join(CHECKPOINT)})")
        return found[0]
    return _read(path, optional=False)


def _read(path: Path, *, optional: bool) -> Norms:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StatsError(f"{path}: cannot be read as statistics ({error})") from error
    try:
        found = norms(data, where=str(path))
    except StatsError:
        if optional:
            return {}
        raise
    return found


def norms(data: Any, *, where: str) -> Norms:
    """Understand what a file of statistics says."""
    if not isinstance(data, dict):
        raise StatsError(f"{where}: no statistics: expected an object")
    if data.get("format") == FORMAT:
        entries = data.get("statistics", [data])
        read = [Statistics.from_json(entry, where=where) for entry in entries]
        return {_label(one): {name: NormStats.of(summary) for name, summary in one.vectors.items()} for one in read}
    if isinstance(data.get("norm_stats"), dict):  # openpi's file, or the config.json of an OpenVLA checkpoint
        data = data["norm_stats"]
    if _figures(data.get("actions")) or _figures(data.get("action")):
        names = OPENPI if "actions" in data else OPENVLA if "num_transitions" in data else LEROBOT
        return {"": _vectors(data, names, where)}
    datasets = {
        name: entry
        for name, entry in data.items()
        if isinstance(entry, dict) and any(_figures(entry.get(word)) for word in OPENVLA.values())
    }
    if not datasets:
        raise StatsError(f"{where}: no statistics in a form that is known here ({', '.join(FORMS)})")
    return {name: _vectors(entry, OPENVLA, f"{where}: {name}") for name, entry in datasets.items()}


def _label(one: Statistics) -> str:
    words = [f"view {one.view}" if one.view else "", f"split {one.split}" if one.split else "", one.filters or ""]
    return ", ".join([one.name, *filter(None, words)])


def _figures(entry: Any) -> bool:
    return isinstance(entry, dict) and bool({"mean", "min", "q01", "p01"} & entry.keys())


def _vectors(data: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, NormStats]:
    return {
        ours: _norm(data[theirs], f"{where}: {theirs}") for ours, theirs in names.items() if _figures(data.get(theirs))
    }


def _norm(entry: Mapping[str, Any], where: str) -> NormStats:
    """Take one vector's figures; dimensions have no names in these files, so they are numbered."""
    try:
        figures: dict[str, Any] = {name: _array(entry, name) for name in KNOWN}
        size = next(len(values) for values in figures.values() if values is not None)
        mask = np.array(entry.get("mask") or [True] * size, bool)
        return NormStats(names=tuple(str(i) for i in range(size)), mask=mask, **figures)
    except (StatsError, TypeError, ValueError) as error:
        raise StatsError(f"{where}: {error}") from error


def _array(entry: Mapping[str, Any], name: str) -> Array | None:
    found = next((entry[word] for word in SPELLINGS.get(name, (name,)) if word in entry), None)
    return None if found is None else np.array(found, np.float64)
