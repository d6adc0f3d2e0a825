"""The metrics of an evaluation, and for comparison, those of always predicting the mean action. Works without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.actions import ActionTokenizer
from finetune.training.metrics import JudgedSteps
from schemas.source import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSource:
    """One dataset: its name, the unit of each dimension, and its mean action [D].

    The mean is given as tokens, as normalized numbers, and in the units.
    """

    name: str
    units: Mapping[str, str]
    mean_tokens: Array
    mean_normalized: Array
    mean: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All judged steps of an evaluation."""

    steps: JudgedSteps
    sources: Sequence[ScoredSource]
    dims: Sequence[str]
    tokenizer: ActionTokenizer

    def to_json(self) -> dict[str, Any]:
        """Return the metrics of all steps and of each dataset.

        Each dataset also has the metrics of a policy that always predicts its mean action.
        """
        by_source = {
            source.name: self._one(source, self.steps.of(self.steps.source == i))
            for i, source in enumerate(self.sources)
            if (self.steps.source == i).any()
        }
        return {"steps": len(self.steps.step), **self._figures(self.steps), "sources": by_source}

    def _one(self, source: ScoredSource, steps: JudgedSteps) -> dict[str, Any]:
        mean = steps.always(source.mean_tokens, source.mean_normalized, source.mean)
        dims = {
            dim: {"unit": source.units[dim], **self._dim(steps, d), "mean_action": self._dim(mean, d)}
            for d, dim in enumerate(self.dims)
            if steps.known[..., d].any()
        }
        return {"steps": len(steps.step), **self._figures(steps), "mean_action": self._figures(mean), "dims": dims}

    def _figures(self, steps: JudgedSteps) -> dict[str, float]:
        errors = steps.errors(self.tokenizer)._asdict()
        return {name: float(errors[name][steps.known].mean()) for name in ("token_accuracy", "l1", "not_actions")}

    def _dim(self, steps: JudgedSteps, d: int) -> dict[str, float]:
        errors, known = steps.errors(self.tokenizer)._asdict(), steps.known[..., d]
        return {name: float(column[..., d][known].mean()) for name, column in errors.items()}
