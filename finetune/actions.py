"""Converts actions to tokens with the 256 bins of OpenVLA, and tokens to actions. Works without torch.

A value on the edge of two bins gets the same token as in OpenVLA.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.errors import CheckpointError, UsageError
from schemas.source import Array
from stats.norm import NormStats

NO_EPS = 0.0  # OpenVLA adds a small epsilon when it normalizes, but not when it un-normalizes
LARGEST = 1e7  # no action has this size in any unit: it is above the steps of a servo and the pascals of a gripper


@dataclass(frozen=True, slots=True)
class ActionTokenizer:
    """Maps each number of a normalized action to one of the `bins` highest token ids below `vocab_size`.

    A larger number has a lower id: -1 maps to the highest id and 1 to the lowest. `vocab_size` is the number of words
    of the tokenizer. It does not count the padding rows of the embedding.

    >>> tokenizer = ActionTokenizer()
    >>> tokenizer.encode(np.array([-1.0, 0.0, 1.0])).tolist()
    [31999, 31872, 31744]
    >>> tokenizer.decode(np.array([31999, 31744])).round(5).tolist()
    [-0.99608, 0.99608]
    """

    vocab_size: int = 32000
    bins: int = 256

    def encode(self, actions: Any) -> Array:
        """Return the token ids of normalized numbers, after clipping them to [-1, 1]. Raises UsageError for NaN."""
        values = np.asarray(actions)
        if np.isnan(values).any():
            raise UsageError("the action contains NaN, which has no token")
        return np.asarray(self.vocab_size - np.digitize(np.clip(values, -1, 1), self._edges()))

    def decode(self, ids: Any) -> Array:
        """Return the center of each id's bin, float64. An id outside the range of action ids maps to the nearest bin.

        There are `bins` ids but only `bins - 1` bins, so the two lowest ids share a bin.
        """
        index = np.clip(self.vocab_size - np.asarray(ids) - 1, 0, self.bins - 2)
        edges = self._edges()
        return np.asarray(((edges[:-1] + edges[1:]) / 2)[index])

    def is_action(self, ids: Any) -> Array:
        """Whether each id stands for an action, bool. Others are words, or the end of the text."""
        ids = np.asarray(ids)
        return np.asarray((self.vocab_size - self.bins <= ids) & (ids < self.vocab_size))

    def _edges(self) -> Array:
        return np.linspace(-1, 1, self.bins)


def unnormalized(tokenizer: ActionTokenizer, ids: Any, norm: NormStats, *, eps: float = NO_EPS) -> Array:
    """Convert tokens [..., A] to actions in the units of a dataset, float64.

    OpenVLA-OFT un-normalizes with an `eps`, OpenVLA without one. A token that is not an action gives the middle of its
    dimension's bounds, and never the largest action.
    """
    actions = norm.unnormalize(tokenizer.decode(ids), eps=eps)
    return np.where(tokenizer.is_action(ids), actions, norm.middle())


def check_physical(actions: Array, norm: NormStats, *, where: str) -> None:
    """Raise CheckpointError if a number of actions [..., A] is not finite or beyond any physical size."""
    is_wrong = ~(np.abs(actions) <= LARGEST)
    if is_wrong.any():
        name = norm.names[int(np.argwhere(is_wrong)[0][-1])]
        raise CheckpointError(
            f"{where}: dimension {name} of the action is {actions[is_wrong][0]:.3g}, which no robot can do: the "
            "statistics of the dataset are wrong"
        )
