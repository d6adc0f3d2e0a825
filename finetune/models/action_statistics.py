"""The statistics of a checkpoint: those of the actions and proprios of each dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from schemas.errors import CheckpointError, StatsError, UsageError, did_you_mean
from stats.formats import norms
from stats.norm import METHOD, NEEDS, Method, NormStats


@dataclass(frozen=True, slots=True)
class ActionStatistics:
    """The statistics of a checkpoint's actions and proprios, by dataset. A dataset may lack those of proprios."""

    known: Mapping[str, NormStats]
    proprios: Mapping[str, NormStats]
    where: str

    @classmethod
    def of(cls, norm_stats: Any, *, where: str, method: Method | None = None) -> Self:
        """Parse a checkpoint's statistics. Raises CheckpointError if there are none or they are not valid.

        `method` replaces the method that they name, which is `bounds_q99` if they name none.
        """
        if not norm_stats:
            files = "dataset_statistics.json or norm_stats in config.json"
            raise CheckpointError(f"{where}: no statistics to un-normalize actions; add {files}")
        try:
            statistics = norms(norm_stats, where=where)
        except StatsError as error:
            raise CheckpointError(str(error)) from error
        known = {name: vectors["action"] for name, vectors in statistics.items() if "action" in vectors}
        proprios = {name: vectors["state"] for name, vectors in statistics.items() if "state" in vectors}
        for name, entry in norm_stats.items():
            if isinstance(entry, dict) and "action" in entry and name not in known:
                needs = " and ".join(NEEDS[method or METHOD])
                raise CheckpointError(f"{where}: {name}: action: {needs} are missing")
        if method is not None:
            known, proprios = (
                {name: replace(norm, method=method) for name, norm in vectors.items()} for vectors in (known, proprios)
            )
        for name, norm in known.items():
            _check(norm, where=f"{where}: {name}: action")
        return cls(known, proprios, where)

    def named(self, key: str | None) -> NormStats:
        """Return the statistics of the actions of dataset `key`, which may be None if there is only one.

        Raises UsageError if the dataset is unknown, or if `key` is None and there are several.
        """
        return self.known[self._key(key)]

    def proprio(self, key: str | None) -> NormStats:
        """Return the statistics of the proprios of dataset `key`. Raises CheckpointError if there are none."""
        name = self._key(key)
        if name not in self.proprios:
            raise CheckpointError(
                f"{self.where}: {name}: no statistics of the proprio, which the model was trained with: add "
                f'"proprio" with {" and ".join(NEEDS[self.known[name].method])}'
            )
        _check(self.proprios[name], where=f"{self.where}: {name}: proprio")
        return self.proprios[name]

    def _key(self, key: str | None) -> str:
        if key is None and len(self.known) == 1:
            return next(iter(self.known))
        if key is None:
            known = ", ".join(sorted(self.known))
            raise UsageError(f"{self.where}: unnorm_key is required: there are {len(self.known)} datasets ({known})")
        if key not in self.known:
            raise UsageError(f"{self.where}: no statistics for '{key}'{did_you_mean(key, self.known)}")
        return key


def _check(norm: NormStats, *, where: str) -> None:
    """Raise CheckpointError if statistics lack what their method needs."""
    for key in NEEDS[norm.method]:
        figures = getattr(norm, key)
        if figures is None or figures.ndim != 1:
            what = "is missing" if figures is None else f"must be {len(norm.names)} numbers, not lists of them"
            raise CheckpointError(f"{where}: {key} {what}")
