"""The rules that read numbers: actions, states, times and other columns."""

from pipelines.checks.batch import Batch
from pipelines.checks.check import Check
from pipelines.checks.numbers import noop

CHECKS: tuple[Check[Batch], ...] = (noop.CHECK,)
