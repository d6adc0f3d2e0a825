"""The control rate, from timestamps or from the description of the source."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.sample import Sample
from schemas.parsing import parse_json
from schemas.source import Array

RATE_KEYS = ("fps", "control_hz", "control_freq", "control_frequency", "frequency", "hz", "rate")
MAX_JSON_LENGTH, MAX_JSON_DEPTH = 1 << 20, 8  # limits of the JSON in per-episode texts that is searched for keys
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
MIN_STEP, MAX_STEP = 0.001, 1.0  # seconds between steps; the unit of a clock must give such steps
AGREEMENT = 0.02  # rates with a smaller relative difference agree
ROUNDING = 0.002  # a rate with a smaller relative distance to a whole number is rounded
COMPUTED = 1e-3  # a clock with a smaller relative jitter was computed, not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The control rate, and the field with times in seconds, if there is one."""

    hz: Claim
    timestamp: Claim | None

    @property
    def rate(self) -> float | None:
        """The rate in Hz; None if it is open."""
        return None if self.hz.is_open else float(self.hz.value)


def clock(sample: Sample, paths: Sequence[str]) -> Clock:
    """Claim the rate from the timestamp fields `paths` and the source's description; it is open if these disagree."""
    described_rates = dict(_described_rates(sample))
    measured = [(path, *_measured(sample.columns(path))) for path in paths]
    usable = [(path, step, note) for path, step, note in measured if step]
    broken = "; ".join(f"{path}: {note}" for path, step, note in measured if not step)
    timestamp = None
    rates = {f"{where} is {rate:g}": rate for where, rate in described_rates.items()}
    for path, step, note in usable:
        unit = next((unit for unit, size in UNITS.items() if MIN_STEP <= step * size <= MAX_STEP), None)
        if unit is None:
            continue
        hz = 1 / (step * UNITS[unit])
        rates[f"{path}: median step {step:.6g} {unit}, {note}"] = hz
        if unit == "s" and timestamp is None:
            timestamp = Claim(path, "high", f"always increases; {note}; a step of {step:.3g} must be in seconds")
    evidence = "; ".join(rates)
    if not rates:
        unknown = f"steps per second; remove the line if unknown{broken and f' ({broken})'}"
        return Clock(hz=todo(unknown), timestamp=None)
    low, high = min(rates.values()), max(rates.values())
    if high > low * (1 + AGREEMENT):
        return Clock(hz=todo(f"the rates disagree: {evidence}"), timestamp=timestamp)
    hz = next(iter(rates.values()))
    nearest = round(hz)
    hz = nearest if nearest and abs(hz / nearest - 1) < ROUNDING else round(hz, 3)
    return Clock(hz=Claim(f"{hz:g}", "high" if described_rates or usable else "medium", evidence), timestamp=timestamp)


def _measured(columns: Sequence[Array]) -> tuple[float | None, str]:
    """Return the median time between steps, and a text on its regularity.

    If the time does not always increase, returns None and the reason.
    """
    steps = np.concatenate([np.diff(column[:, 0]) for column in columns] or [np.zeros(0)])
    if not len(steps) or not np.isfinite(steps).all():
        return None, "no steps, or times that are not finite"
    if (steps <= 0).any():
        return None, f"time does not increase at {int((steps <= 0).sum())} steps"
    step = float(np.median(steps))
    jitter = 1.4826 * float(np.median(np.abs(steps - step))) / step
    if np.abs(steps / step - 1).max() < COMPUTED:
        return step, "a constant clock, so it was computed and not measured"
    late = float((steps > 1.5 * step).mean())
    return step, f"jitter {jitter:.1%}, {late:.1%} of the steps late"


def _described_rates(sample: Sample) -> Iterator[tuple[str, float]]:
    for where, value in described(sample, RATE_KEYS):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10_000:
            yield where, float(value)


def described(sample: Sample, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Find the values of `keys` and where they are, such as `source.fps`.

    Searches the source's description, the per-episode fields of the first episode, and JSON in these fields.
    """
    yield from _named(sample.description, keys, "source")
    for path, value in (sample.metadata[0] if sample.metadata else {}).items():
        if path.rpartition(".")[2] in keys:
            yield path, value
        elif isinstance(value, str) and value.lstrip().startswith("{") and len(value) < MAX_JSON_LENGTH:
            try:
                yield from _named(parse_json(value), keys, path)
            except ValueError:
                continue


def _named(value: Any, keys: Sequence[str], where: str, *, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or depth > MAX_JSON_DEPTH:
        return
    for key, item in value.items():
        if key in keys:
            yield f"{where}.{key}", item
        else:
            yield from _named(item, keys, f"{where}.{key}", depth=depth + 1)
