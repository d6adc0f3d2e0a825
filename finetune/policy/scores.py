"""Predicted actions beside recorded ones, and how far apart they are; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from finetune.actions import ActionTokenizer
from schemas.source import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """N judged steps of C actions with D numbers: where they are [N], and [N, C, D] as tokens and in their units.

    `known` says which numbers were recorded.
    """

    source: Array
    episode: Array
    step: Array
    tokens: Array
    truth: Array  # the tokens of what was recorded
    predicted: Array
    recorded: Array
    known: Array

    @classmethod
    def joined(cls, parts: Sequence[Self], limit: int) -> Self:
        """Put batches together, and keep the first `limit` steps."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts])[:limit] for name in names})

    def of(self, chosen: Array) -> Self:
        """Choose steps."""
        return type(self)(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def always(self, tokens: Array, action: Array) -> Self:
        """Give the same steps for a policy that does one thing, [D], whatever it sees."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        shape = self.tokens.shape
        one = {"tokens": np.broadcast_to(tokens, shape), "predicted": np.broadcast_to(action, shape)}
        return type(self)(**{**told, **one})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One dataset: its name, the units of its numbers, and its mean action as tokens and in its units, [D]."""

    name: str
    units: Mapping[str, str]
    mean_tokens: Array
    mean: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All judged steps of an evaluation."""

    steps: Steps
    sources: Sequence[Source]
    dims: Sequence[str]
    tokenizer: ActionTokenizer

    def to_json(self) -> dict[str, Any]:
        """Give the figures of all steps and of each dataset, beside those of always doing its mean action."""
        by_source = {
            source.name: self._one(source, self.steps.of(self.steps.source == i))
            for i, source in enumerate(self.sources)
            if (self.steps.source == i).any()
        }
        return {"steps": len(self.steps.step), **self._figures(self.steps), "sources": by_source}

    def _one(self, source: Source, steps: Steps) -> dict[str, Any]:
        mean = steps.always(source.mean_tokens, source.mean)
        dims = {
            dim: {"unit": source.units[dim], **self._dim(steps, d), "mean_action": self._dim(mean, d)}
            for d, dim in enumerate(self.dims)
            if steps.known[..., d].any()
        }
        return {"steps": len(steps.step), **self._figures(steps), "mean_action": self._figures(mean), "dims": dims}

    def _figures(self, steps: Steps) -> dict[str, float]:
        known = steps.known
        return {
            "token_accuracy": float((steps.tokens == steps.truth)[known].mean()),
            "l1": float(self._normalized(steps)[known].mean()),
        }

    def _dim(self, steps: Steps, d: int) -> dict[str, float]:
        known = steps.known[..., d]
        return {
            "token_accuracy": float((steps.tokens == steps.truth)[..., d][known].mean()),
            "l1": float(self._normalized(steps)[..., d][known].mean()),
            "l1_metric": float(np.abs(steps.predicted - steps.recorded)[..., d][known].mean()),
        }

    def _normalized(self, steps: Steps) -> Array:
        """Give the distance between the middles of both bins, as OpenVLA does."""
        return np.asarray(np.abs(self.tokenizer.decode(steps.tokens) - self.tokenizer.decode(steps.truth)))
