"""Actions as tokens: OpenVLA's 256 bins, exact at every edge. Importable without torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.errors import UsageError
from schemas.source import Array

NO_EPS = 0.0  # OpenVLA un-normalizes without the constant that it normalizes with


@dataclass(frozen=True, slots=True)
class ActionTokenizer:
    """Each number of a normalized action is one token: the last `bins` ids below `vocab_size`, 1 having the lowest.

    `vocab_size` counts the tokenizer's own words, without the padding of the embedding.

    >>> tokenizer = ActionTokenizer()
    >>> tokenizer.encode(np.array([-1.0, 0.0, 1.0])).tolist()
    [31999, 31872, 31744]
    >>> tokenizer.decode(np.array([31999, 31744])).round(5).tolist()
    [-0.99608, 0.99608]
    """

    vocab_size: int = 32000
    bins: int = 256

    def encode(self, actions: Any) -> Array:
        """Give the ids of normalized numbers of any shape; what lies outside [-1, 1] counts as the end it is past."""
        values = np.asarray(actions)
        if np.isnan(values).any():
            raise UsageError("an action that is not a number (NaN) has no token")
        return np.asarray(self.vocab_size - np.digitize(np.clip(values, -1, 1), self._edges()))

    def decode(self, ids: Any) -> Array:
        """Give the middle of each id's bin, float64; an id beyond the bins counts as the nearest one.

        There are `bins` ids and one bin less, so the two lowest ids mean the same.
        """
        index = np.clip(self.vocab_size - np.asarray(ids) - 1, 0, self.bins - 2)
        edges = self._edges()
        return np.asarray(((edges[:-1] + edges[1:]) / 2)[index])

    def _edges(self) -> Array:
        return np.linspace(-1, 1, self.bins)
