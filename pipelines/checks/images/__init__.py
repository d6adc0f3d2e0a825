"""The rules that look at images, each decoded once and small."""

from pipelines.checks.check import Check
from pipelines.checks.images import black, frozen, lag, swap
from pipelines.checks.images.read import EpisodeImages

CHECKS: tuple[Check[EpisodeImages], ...] = (black.CHECK, frozen.CHECK, lag.CHECK, swap.CHECK)
