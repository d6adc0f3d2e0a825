"""Metrics of predicted actions: token accuracy, and L1 errors in normalized and metric units. Works without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np

from finetune.actions import ActionTokenizer, unnormalized
from finetune.data.assemble import Batch
from schemas.source import Array
from stats.norm import EPS, NEEDS, NormStats

CLOSE = 1e-6  # relative tolerance to consider the statistics of a checkpoint and a lock the same


class Errors(NamedTuple):
    """The errors of predicted numbers, [N, C, D] each."""

    token_accuracy: Array  # bool: whether the token is right
    l1: Array  # absolute error of the normalized number
    l1_metric: Array  # absolute error in the units of the dataset
    not_actions: Array  # bool: whether the predicted token is not an action


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSteps:
    """N judged steps, each with C actions of D numbers.

    `source`, `episode` and `step` [N] say where each step is. The other arrays have one value for each number,
    [N, C, D]. `known` is True for numbers that were recorded.
    """

    source: Array
    episode: Array
    step: Array
    tokens: Array  # the predicted tokens; those of the nearest bins if the head is continuous
    truth: Array  # the tokens of the recorded actions
    normalized: Array  # as predicted: the centers of the bins, 0 for tokens that are not actions
    wanted: Array  # the recorded actions, normalized: the centers of the bins, or exact if the head is continuous
    predicted: Array  # in the units of the dataset
    recorded: Array  # in the units of the dataset
    known: Array

    @classmethod
    def joined(cls, parts: Sequence[Self], limit: int) -> Self:
        """Concatenate the steps of several batches, and keep the first `limit` of them."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts])[:limit] for name in names})

    def of(self, chosen: Array) -> Self:
        """Return only the steps that `chosen` selects, an index or a mask."""
        return type(self)(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def always(self, tokens: Array, normalized: Array, action: Array) -> Self:
        """Return the same steps, but with the predictions of a policy that always predicts one action [D].

        It is given as tokens, as normalized numbers, and in the units of the dataset.
        """
        same = {"tokens": tokens, "normalized": normalized, "predicted": action}
        return replace(self, **{name: np.broadcast_to(row, self.tokens.shape) for name, row in same.items()})

    def errors(self, tokenizer: ActionTokenizer) -> Errors:
        """Compare predicted with recorded actions.

        As in OpenVLA, the normalized error of tokens is the distance between the centers of the two bins. The metric
        error is the distance between the predicted and the recorded action, in the units of the dataset. A predicted
        token that is not an action counts as 0, and not as the largest action as in OpenVLA.
        """
        is_action = tokenizer.is_action(self.tokens)
        normalized = np.abs(self.normalized - self.wanted)
        return Errors(self.tokens == self.truth, normalized, np.abs(self.predicted - self.recorded), ~is_action)


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares predicted tokens, or normalized actions, with recorded actions.

    `names` and `norms` are the names and statistics of the sources, in the order of the loader. `own` are the
    statistics of the policy. If None, they are the same as `norms`.
    """

    names: Sequence[str]
    norms: Sequence[NormStats]
    tokenizer: ActionTokenizer
    own: Sequence[NormStats] | None = None

    def __call__(self, batch: Batch, predicted: Array) -> JudgedSteps:
        """Combine the predictions for a batch with its recorded actions.

        `predicted` are tokens, int [B, C * D], or normalized actions, float [B, C, D].
        """
        action, source = np.asarray(batch.action, np.float64), np.asarray(batch.source)
        predicted = predicted.reshape(action.shape)
        is_continuous = np.issubdtype(predicted.dtype, np.floating)
        tokens = self.tokenizer.encode(np.nan_to_num(predicted)) if is_continuous else predicted
        acted, recorded, normalized = (np.empty_like(action) for _ in range(3))
        for i in np.unique(source):
            at, norm, own = source == i, self.norms[i], (self.own or self.norms)[i]
            if is_continuous:
                acted[at] = own.unnormalize(predicted[at].astype(np.float64), eps=EPS)
            else:
                acted[at] = unnormalized(self.tokenizer, tokens[at], own)
            recorded[at] = norm.unnormalize(action[at], eps=EPS)
            normalized[at] = action[at] if _are_same(own, norm) else own.normalize(recorded[at])
        truth, decode = self.tokenizer.encode(normalized), self.tokenizer.decode
        centers = np.where(self.tokenizer.is_action(tokens), decode(tokens), 0)
        return JudgedSteps(
            source=source,
            episode=np.asarray(batch.episode),
            step=np.asarray(batch.step),
            tokens=tokens,
            truth=truth,
            normalized=predicted.astype(np.float64) if is_continuous else centers,
            wanted=normalized if is_continuous else decode(truth),
            predicted=acted,
            recorded=recorded,
            known=batch.known,
        )

    def nothing(self) -> "Metrics":
        """Return the metrics of no steps, in which all sums are 0."""
        dims = (len(self.norms), len(self.norms[0].names))
        return Metrics(np.zeros(2), *(np.zeros(dims) for _ in range(4)))

    def summed(self, steps: JudgedSteps, *, loss: float, terms: int) -> "Metrics":
        """Return the metrics of judged steps. `loss` is the sum of the loss over `terms` tokens or numbers."""
        known, errors = steps.known, steps.errors(self.tokenizer)
        columns = [known, *(np.where(known, column, 0) for column in errors[:3])]
        return Metrics(np.array([loss, terms]), *(self._by_source(steps.source, column) for column in columns))

    def _by_source(self, source: Array, column: Array) -> Array:
        out = np.zeros((len(self.norms), column.shape[-1]))
        np.add.at(out, source, column.sum(axis=1))
        return out


@dataclass(frozen=True, slots=True)
class Metrics:
    """Sums over judged steps, which can be merged in any order.

    `loss` [2] is the sum of the loss and the number of its terms. The other arrays have the shape [sources, D].
    """

    loss: Array
    count: Array
    correct: Array
    normalized: Array
    metric: Array

    def merge(self, other: Self) -> Self:
        """Return the metrics of the steps of both."""
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def flat(self) -> Array:
        """Return all sums as one array [N], so that the processes of a run can add them."""
        return np.concatenate([getattr(self, name).ravel() for name in self.__slots__])

    def unflat(self, row: Array) -> Self:
        """Convert the result of `flat` back to metrics of the same shapes."""
        sizes = np.cumsum([getattr(self, name).size for name in self.__slots__])[:-1]
        parts = zip(self.__slots__, np.split(row, sizes), strict=True)
        return type(self)(*(part.reshape(getattr(self, name).shape) for name, part in parts))

    def summary(self) -> dict[str, float]:
        """Return the mean loss, token accuracy and L1 over all sources and dimensions."""
        return {"loss": _mean(self.loss[0], self.loss[1]), **self._figures(slice(None))}

    def by_source(self, judge: Judge) -> dict[str, Any]:
        """Return token accuracy and L1 of each dataset that has steps, and both kinds of L1 for each dimension."""
        dims = judge.norms[0].names
        return {
            name: {**self._figures(i), "dims": {dim: self._dim(i, j) for j, dim in enumerate(dims) if self.count[i, j]}}
            for i, name in enumerate(judge.names)
            if self.count[i].any()
        }

    def _figures(self, of: int | slice) -> dict[str, float]:
        count, correct, normalized = (sums[of].sum() for sums in (self.count, self.correct, self.normalized))
        return {"token_accuracy": _mean(correct, count), "l1": _mean(normalized, count)}

    def _dim(self, i: int, j: int) -> dict[str, float]:
        errors = {"l1": self.normalized, "l1_metric": self.metric}
        return {name: _mean(sums[i, j], self.count[i, j]) for name, sums in errors.items()}


def _mean(total: float, count: float) -> float:
    return float(total / count) if count else float("nan")


def _are_same(own: NormStats, theirs: NormStats) -> bool:
    if own is theirs or own.method != theirs.method:
        return own is theirs
    pairs = [(getattr(own, name), getattr(theirs, name)) for name in (*NEEDS[own.method], "mask")]
    return all(a is not None and b is not None and np.allclose(a, b, rtol=CLOSE, atol=0) for a, b in pairs)
