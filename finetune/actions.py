"""Converts actions to tokens: OpenVLA's 256 bins, exact at every edge. Does not import torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.errors import UsageError
from schemas.source import Array

NO_EPS = 0.0  # OpenVLA un-normalizes without the epsilon of its normalization


@dataclass(frozen=True, slots=True)
class ActionTokenizer:
    """Maps each number of a normalized action to one of the last `bins` ids below `vocab_size`; 1 has the lowest id.

    `vocab_size` is the number of the tokenizer's words, without the padding of the embedding.

    >>> tokenizer = ActionTokenizer()
    >>> tokenizer.encode(np.array([-1.0, 0.0, 1.0])).tolist()
    [31999, 31872, 31744]
    >>> tokenizer.decode(np.array([31999, 31744])).round(5).tolist()
    [-0.99608, 0.99608]
    """

    vocab_size: int = 32000
    bins: int = 256

    def encode(self, actions: Any) -> Array:
        """Return the ids of normalized numbers of any shape, clipped to [-1, 1]. Raises UsageError for NaN."""
        values = np.asarray(actions)
        if np.isnan(values).any():
            raise UsageError("the action contains NaN, which has no token")
        return np.asarray(self.vocab_size - np.digitize(np.clip(values, -1, 1), self._edges()))

    def decode(self, ids: Any) -> Array:
        """Return the center of each id's bin, float64; an id outside the bins maps to the nearest bin.

        There are `bins` ids but only `bins - 1` bins, so the two lowest ids share a bin.
        """
        index = np.clip(self.vocab_size - np.asarray(ids) - 1, 0, self.bins - 2)
        edges = self._edges()
        return np.asarray(((edges[:-1] + edges[1:]) / 2)[index])

    def _edges(self) -> Array:
        return np.linspace(-1, 1, self.bins)
