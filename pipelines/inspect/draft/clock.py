"""How many steps a second: from timestamps, or from what the source says of itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError, loads
from typing import Any

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.sample import Sample
from schemas.source import Array

TOLD = ("fps", "control_hz", "control_freq", "control_frequency", "frequency", "hz", "rate")
LONGEST_JSON, DEEPEST = 1 << 20, 8  # of texts that may hold a description
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SLOW, FAST = 1.0, 0.001  # seconds between steps: no teleoperation is slower or faster, so the unit is the one that fits
AGREE = 0.02  # two rates that differ by less are one
ROUND = 0.002  # a rate that is so near to a whole number is that
STEADY = 1e-3  # of a step: a clock that varies less was computed, not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The rate, and the field of times in seconds, if one can serve."""

    hz: Claim
    timestamp: Claim | None

    @property
    def rate(self) -> float | None:
        """Give the rate where it is claimed."""
        return None if self.hz.is_open else float(self.hz.value)


def clock(sample: Sample, paths: Sequence[str]) -> Clock:
    """Find the rate; where timestamps and description disagree, both are evidence and nothing is claimed."""
    told = dict(_rates(sample))
    measured = [(path, *_measured(sample.columns(path))) for path in paths]
    usable = [(path, step, note) for path, step, note in measured if step]
    broken = "; ".join(f"{path}: {note}" for path, step, note in measured if not step)
    timestamp = None
    rates = {f"{where} says {rate:g}": rate for where, rate in told.items()}
    for path, step, note in usable:
        unit = next((unit for unit, size in UNITS.items() if FAST <= step * size <= SLOW), None)
        if unit is None:
            continue
        hz = 1 / (step * UNITS[unit])
        rates[f"{path}: median step {step:.6g} {unit}, {note}"] = hz
        if unit == "s" and timestamp is None:
            timestamp = Claim(path, "high", f"never goes back; {note}; seconds, as steps of {step:.3g} can only be")
    evidence = "; ".join(rates)
    if not rates:
        return Clock(
            hz=todo(f"steps per second; remove the line if nobody knows{broken and f' ({broken})'}"), timestamp=None
        )
    low, high = min(rates.values()), max(rates.values())
    if high > low * (1 + AGREE):
        return Clock(hz=todo(f"these disagree: {evidence}"), timestamp=timestamp)
    hz = next(iter(rates.values()))
    nearest = round(hz)
    hz = nearest if nearest and abs(hz / nearest - 1) < ROUND else round(hz, 3)
    return Clock(hz=Claim(f"{hz:g}", "high" if told or usable else "medium", evidence), timestamp=timestamp)


def _measured(columns: Sequence[Array]) -> tuple[float | None, str]:
    """Give the median step within the episodes, and how steady it is; None where time does not go forward."""
    steps = np.concatenate([np.diff(column[:, 0]) for column in columns] or [np.zeros(0)])
    if not len(steps) or not np.isfinite(steps).all():
        return None, "no steps, or times that are no numbers"
    if (steps <= 0).any():
        return None, f"time stands still or goes back {int((steps <= 0).sum())} times"
    step = float(np.median(steps))
    jitter = 1.4826 * float(np.median(np.abs(steps - step))) / step
    if np.abs(steps / step - 1).max() < STEADY:
        return step, "a constant clock: computed, so jitter cannot be told"
    late = float((steps > 1.5 * step).mean())
    return step, f"jitter {jitter:.1%}, {late:.1%} of the steps late"


def _rates(sample: Sample) -> Iterator[tuple[str, float]]:
    for where, value in described(sample, TOLD):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10_000:
            yield where, float(value)


def described(sample: Sample, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Find values under such keys in the source's description, its per-episode fields, and JSON inside these."""
    yield from _named(sample.description, keys, "source")
    for path, value in (sample.metadata[0] if sample.metadata else {}).items():
        if path.rpartition(".")[2] in keys:
            yield path, value
        elif isinstance(value, str) and value.lstrip().startswith("{") and len(value) < LONGEST_JSON:
            try:
                yield from _named(loads(value), keys, path)
            except (JSONDecodeError, RecursionError):
                continue


def _named(value: Any, keys: Sequence[str], where: str, *, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or depth > DEEPEST:
        return
    for key, held in value.items():
        if key in keys:
            yield f"{where}.{key}", held
        else:
            yield from _named(held, keys, f"{where}.{key}", depth=depth + 1)
