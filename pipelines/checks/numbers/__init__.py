"""The rules that read numbers: actions, states, times and other columns."""

from pipelines.checks.batch import NumberBatch
from pipelines.checks.check import Check
from pipelines.checks.numbers import copies, finite, frozen, idle, lag, mixed, noop, ranges, rest, spikes, times

CHECKS: tuple[Check[NumberBatch], ...] = (
    finite.CHECK,
    noop.CHECK,
    idle.CHECK,
    times.JITTER,
    times.GAP,
    lag.CHECK,
    frozen.CHECK,
    spikes.CHECK,
    ranges.COLLAPSE,
    ranges.SATURATION,
    ranges.CONSTANT,
    copies.CHECK,
    rest.CHECK,
    mixed.CHECK,
)
