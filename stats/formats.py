"""Read and write statistics in the file formats of oxe-tools, OpenVLA, LeRobot and openpi."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from schemas.errors import StatsError, did_you_mean
from schemas.files.folder import Folder, open_folder
from schemas.parsing import parse_json
from schemas.source import Array
from stats.norm import KNOWN, METHOD, NEEDS, Method, NormStats
from stats.record import FORMAT, Statistics
from stats.summary import Summary

Form: TypeAlias = Literal["native", "openvla", "lerobot", "openpi"]
Norms: TypeAlias = dict[str, dict[str, NormStats]]  # dataset ("" if unnamed) -> vector -> statistics
SPELLINGS = {"q01": ("q01", "p01"), "q99": ("q99", "p99")}  # Octo and open-pi-zero write p01
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


def openvla(statistics: Statistics) -> dict[str, Any]:
    """Return the content of OpenVLA's `dataset_statistics.json`."""
    return {statistics.name: openvla_entry(statistics, action=statistics.norm())}


def openvla_entry(statistics: Statistics, *, action: NormStats) -> dict[str, Any]:
    """Return the entry of one dataset: the action with a mask, the proprio without one, and the counts.

    `action` has the statistics to normalize with: those of the dataset, or those of a mixture's dimensions. If its
    method is not OpenVLA's `bounds_q99`, both vectors have a `method`, a key that OpenVLA's own code does not read.
    """
    figures = ("mean", "std", "max", "min", "q01", "q99")
    method = {} if action.method == METHOD else {"method": action.method}
    vectors = {"action": {**_lists(action, figures), "mask": action.mask.tolist(), **method}}
    if "state" in statistics.vectors:
        vectors[OPENVLA["state"]] = {**_lists(statistics.vectors["state"], figures), **method}
    return {**vectors, "num_transitions": statistics.steps, "num_trajectories": statistics.episodes}


def lerobot(statistics: Statistics) -> dict[str, Any]:
    """Return the content of LeRobot v3's `meta/stats.json`. Quantiles are of all steps, not averaged over episodes."""
    figures = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
    return {
        theirs: {**_lists(statistics.vectors[ours], figures), "count": [statistics.vectors[ours].count]}
        for ours, theirs in LEROBOT.items()
        if ours in statistics.vectors
    }


def openpi(statistics: Statistics) -> dict[str, Any]:
    """Return the content of openpi's `norm_stats.json`."""
    figures = ("mean", "std", "q01", "q99")
    named = {
        theirs: _lists(statistics.vectors[ours], figures)
        for ours, theirs in OPENPI.items()
        if ours in statistics.vectors
    }
    return {"norm_stats": named}


def _lists(summary: Summary | NormStats, figures: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(summary, name).tolist() for name in figures}


FORMS: dict[str, Callable[[Statistics], dict[str, Any]]] = {
    "native": Statistics.to_json,
    "openvla": openvla,
    "lerobot": lerobot,
    "openpi": openpi,
}


def encode(statistics: Statistics, form: Form) -> bytes:
    """Encode statistics in one of the file formats. Equal statistics give equal bytes."""
    return json.dumps(FORMS[form](statistics), indent=2).encode() + b"\n"


# Reading


def load(path: str | Path) -> Norms:
    """Read statistics from a file in any of the formats, or from such a file in a checkpoint's folder.

    `path` may be an fsspec URI. Raises StatsError if the file is not in a known format.
    """
    text = str(path).rstrip("/")
    above, _, name = text.rpartition("/")
    if name.endswith(".json"):
        return _read(open_folder(above or "."), name)
    folder = open_folder(text)
    for place in _candidates(folder):
        with suppress(StatsError):
            return _read(folder, place)
    raise StatsError(f"{text}: contains no statistics in a known format (expected one of {', '.join(CHECKPOINT)})")


def _candidates(folder: Folder) -> Iterator[str]:
    """Yield the files of a folder that may be statistics, the likeliest first."""
    for pattern in CHECKPOINT:
        above, _, name = pattern.rpartition("/")
        places = [""]
        for part in filter(None, above.split("/")):
            places = [
                f"{place}{leaf}/" for place in places for leaf in (folder.names(place) if part == "*" else [part])
            ]
        yield from (f"{place}{name}" for place in places if folder.size(f"{place}{name}") is not None)


def _read(folder: Folder, name: str) -> Norms:
    where = folder.place(name)
    try:
        data = parse_json(folder.read(name))
    except (OSError, ValueError) as error:
        raise StatsError(f"{where}: cannot be read as statistics ({error})") from error
    return norms(data, where=where)


def norms(data: Any, *, where: str) -> Norms:
    """Convert the content of a file of statistics; its format is detected."""
    if not isinstance(data, dict):
        raise StatsError(f"{where}: expected statistics as a JSON object, got {type(data).__name__}")
    if data.get("format") == FORMAT:
        entries = data.get("statistics", [data])
        read = [Statistics.from_json(entry, where=where) for entry in entries]
        return {
            label(one.name, view=one.view, split=one.split, filters=one.filters): {
                name: NormStats.of(summary) for name, summary in one.vectors.items()
            }
            for one in read
        }
    if isinstance(data.get("norm_stats"), dict):  # openpi, or the config.json of an OpenVLA checkpoint
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
        raise StatsError(f"{where}: contains no statistics in a known format ({', '.join(FORMS)})")
    return {name: _vectors(entry, OPENVLA, f"{where}: {name}") for name, entry in datasets.items()}


def label(name: str, *, view: str | None, split: str | None, filters: str | None) -> str:
    """Return a label that tells records with the same name apart.

    >>> label("kitchen", view="eef_delta", split=None, filters=None)
    'kitchen, view eef_delta'
    """
    words = [f"view {view}" if view else "", f"split {split}" if split else "", filters or ""]
    return ", ".join([name, *filter(None, words)])


def _figures(entry: Any) -> bool:
    return isinstance(entry, dict) and bool({"mean", "min", "q01", "p01"} & entry.keys())


def _vectors(data: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, NormStats]:
    return {
        ours: _norm(data[theirs], f"{where}: {theirs}") for ours, theirs in names.items() if _figures(data.get(theirs))
    }


def _norm(entry: Mapping[str, Any], where: str) -> NormStats:
    """Convert the statistics of one vector. Its dimensions are numbered, because the files do not name them."""
    try:
        figures: dict[str, Any] = {name: _array(entry, name) for name in KNOWN}
        size = max(values.shape[-1] for values in figures.values() if values is not None)
        names, mask = tuple(str(i) for i in range(size)), _mask(entry.get("mask"), size)
        return NormStats(names=names, mask=mask, method=_method(entry.get("method", METHOD)), **figures)
    except StatsError as error:
        raise StatsError(f"{where}: {error}") from error


def _method(word: Any) -> Method:
    if not isinstance(word, str) or word not in NEEDS:
        raise StatsError(f"method: unknown method '{word}'{did_you_mean(str(word), NEEDS)}")
    return cast("Method", word)


def _array(entry: Mapping[str, Any], name: str) -> Array | None:
    values = next((entry[word] for word in SPELLINGS.get(name, (name,)) if word in entry), None)
    if values is None:
        return None
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise StatsError(f"{str(error).splitlines()[0]}: {name} must have a number for each dimension") from error
    if array.ndim == 0 or array.size == 0:
        raise StatsError(f"{name}: expected a number for each dimension, got {values}")
    return array


def _mask(values: Any, size: int) -> Array:
    """Return the mask of a vector: True in all dimensions if the file has none."""
    if values is None:
        return np.ones(size, bool)
    if not isinstance(values, list) or any(value not in (True, False) for value in values):
        raise StatsError(f"mask: expected true or false for each dimension, got {values}")
    return np.array(values, bool)
