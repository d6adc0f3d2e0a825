"""How well actions are predicted: token accuracy, and L1 in normalized and in metric units, by dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from finetune.actions import ActionTokenizer
from finetune.data.assemble import Batch
from finetune.models.decoding import NO_EPS
from finetune.training.batches import known_numbers
from schemas.source import Array
from stats.norm import EPS, NormStats


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares tokens with actions; `names` and `norms` are those of the sources, in the loader's order."""

    names: Sequence[str]
    norms: Sequence[NormStats]
    tokenizer: ActionTokenizer

    def nothing(self) -> "Metrics":
        """Give what no step has been counted in."""
        dims = (len(self.norms), len(self.norms[0].names))
        return Metrics(np.zeros(2), *(np.zeros(dims) for _ in range(4)))

    def __call__(self, batch: Batch, predicted: Array, *, loss: float, tokens: int) -> "Metrics":
        """Count one batch: `predicted` tokens [B, chunk * D], the summed loss and what it was summed over.

        As in OpenVLA, the normalized error lies between the middles of the two bins; the metric one between what the
        policy would do and what was recorded.
        """
        action, known = np.asarray(batch.action, np.float64), known_numbers(batch)
        predicted = predicted.reshape(action.shape)
        truth, did = self.tokenizer.encode(action), self.tokenizer.decode(predicted)
        metric = np.zeros_like(action)
        source = np.asarray(batch.source)
        for place in np.unique(source):
            at, norm = source == place, self.norms[place]
            metric[at] = np.abs(norm.unnormalize(did[at], eps=NO_EPS) - norm.unnormalize(action[at], eps=EPS))
        error = np.abs(did - self.tokenizer.decode(truth))
        columns = [known, (predicted == truth) & known, np.where(known, error, 0), np.where(known, metric, 0)]
        return Metrics(np.array([loss, tokens]), *(self._by_source(source, column) for column in columns))

    def _by_source(self, source: Array, column: Array) -> Array:
        out = np.zeros((len(self.norms), column.shape[-1]))
        np.add.at(out, source, column.sum(axis=1))
        return out


@dataclass(frozen=True, slots=True)
class Metrics:
    """Sums that can be merged in any order; all but `loss` (summed, and of how many tokens) are [sources, D]."""

    loss: Array
    count: Array
    correct: Array
    normalized: Array
    metric: Array

    def merge(self, other: Self) -> Self:
        """Count both."""
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def flat(self) -> Array:
        """Give all sums in one row, for processes to add."""
        return np.concatenate([getattr(self, name).ravel() for name in self.__slots__])

    def unflat(self, row: Array) -> Self:
        """Read `flat` back, in the shapes that these have."""
        sizes = np.cumsum([getattr(self, name).size for name in self.__slots__])[:-1]
        parts = zip(self.__slots__, np.split(row, sizes), strict=True)
        return type(self)(*(part.reshape(getattr(self, name).shape) for name, part in parts))

    def summary(self) -> dict[str, float]:
        """Give the means over all: of the tokens that were to be predicted, and over dimensions."""
        return {
            "loss": _mean(self.loss[0], self.loss[1]),
            "token_accuracy": _mean(self.correct.sum(), self.count.sum()),
            "l1": _mean(self.normalized.sum(), self.count.sum()),
        }

    def by_source(self, judge: Judge) -> dict[str, Any]:
        """Give the same for each dataset that was seen, and both errors of each dimension."""
        dims = judge.norms[0].names
        return {name: self._one(i, dims) for i, name in enumerate(judge.names) if self.count[i].any()}

    def _one(self, i: int, dims: Sequence[str]) -> Mapping[str, Any]:
        count = self.count[i]
        errors = {"l1": self.normalized[i], "l1_metric": self.metric[i]}
        return {
            "token_accuracy": _mean(self.correct[i].sum(), count.sum()),
            "l1": _mean(self.normalized[i].sum(), count.sum()),
            "dims": {
                dim: {word: _mean(sums[j], count[j]) for word, sums in errors.items()}
                for j, dim in enumerate(dims)
                if count[j]
            },
        }


def _mean(total: float, count: float) -> float:
    return float(total / count) if count else float("nan")
