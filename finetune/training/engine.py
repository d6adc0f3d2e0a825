"""Runs training steps and evaluations, in one process or several."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from finetune.data.assemble import Batch
from finetune.recipe import Recipe
from finetune.training.batches import Inputs, MicroBatch
from finetune.training.ema import OFF, WeightAverage
from finetune.training.metrics import Judge, Metrics
from finetune.training.objectives import OBJECTIVES, tokens_in_turn
from finetune.training.parallel import TrainingProcess, quiet, reshard, whole
from finetune.training.schedule import rate
from schemas.errors import TrainingError


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step. `metrics` are for this process's samples; all processes have the same other values."""

    metrics: Metrics
    lr: float
    grad_norm: float
    must_stop: bool


@dataclass(frozen=True, slots=True)
class TrainingEngine:
    """A model that is being trained, as seen from one of the processes."""

    model: nn.Module
    optimizer: AdamW
    recipe: Recipe
    judge: Judge
    here: TrainingProcess
    average: WeightAverage = OFF

    def step(self, parts: Sequence[MicroBatch], *, number: int, stop: bool) -> StepResult:
        """Run step `number`, counted from 0. The loss is the mean over what counts in all processes.

        `stop` requests a stop. If any process requests one, `must_stop` of the result is True in all processes. Raises
        TrainingError if the loss or the gradients are not finite.
        """
        train = self.recipe.train
        terms = sum(inputs.terms for _, inputs in parts)
        totals = self.here.total(torch.tensor([terms, int(stop)])).tolist()
        self.model.train()
        metrics = self.judge.nothing()
        for i, (batch, inputs) in enumerate(parts):
            with quiet(self.model, last=i == len(parts) - 1):
                loss, predicted = self._graded(inputs)
                (loss * (self.here.world / max(totals[0], 1))).backward()
            metrics = metrics.merge(self._judged(batch, loss, predicted, terms=inputs.terms))
        lr = rate(self.recipe.optimizer, number, steps=train.steps)
        norm = self._clipped()
        if not isfinite(norm):
            self._refuse(parts, metrics, number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        return StepResult(metrics, lr, norm, bool(totals[1]))

    @torch.no_grad()
    def evaluate(self, parts: Iterable[MicroBatch]) -> Metrics:
        """Return the metrics of all processes' parts. Each process needs as many; a part may have no samples.

        If the recipe sets `train.ema`, the average of the weights is evaluated.
        """
        self.model.eval()
        metrics = self.judge.nothing()
        with self.average.in_place():
            for batch, inputs in parts:
                loss, predicted = self._graded(inputs)
                if len(batch):
                    metrics = metrics.merge(self._judged(batch, loss, predicted, terms=inputs.terms))
            reshard(self.model)
        return self.summed(metrics)

    def summed(self, metrics: Metrics) -> Metrics:
        """Return the sum of the metrics of all processes."""
        row = self.here.total(torch.from_numpy(metrics.flat()))
        return metrics.unflat(row.cpu().numpy())

    def _graded(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and the predicted actions or tokens."""
        half = self.recipe.train.precision == "bf16"
        objective = OBJECTIVES[self.recipe.oft.head] if self.recipe.oft else tokens_in_turn
        with torch.autocast(self.here.device.type, dtype=torch.bfloat16, enabled=half):
            return objective(self.model, inputs.to(self.here.device))

    def _judged(self, batch: Batch, loss: Tensor, predicted: Tensor, *, terms: int) -> Metrics:
        steps = self.judge(batch, predicted.detach().cpu().numpy())
        return self.judge.summed(steps, loss=float(loss.detach()), terms=terms)

    def _clipped(self) -> float:
        """Return the norm of all gradients. If the recipe sets `train.clip`, the gradients are clipped to it."""
        trained = [value for group in self.optimizer.param_groups for value in group["params"]]
        norm = whole(nn.utils.get_total_norm([value.grad for value in trained if value.grad is not None]))
        if self.recipe.train.clip:
            nn.utils.clip_grads_with_norm_(trained, self.recipe.train.clip, norm)
        return float(norm)

    def _refuse(self, parts: Sequence[MicroBatch], metrics: Metrics, number: int) -> None:
        """Raise TrainingError with the samples of this process and what is not finite, the loss or the gradients."""
        where = "; ".join(_named(batch, self.judge.names) for batch, _ in parts)
        loss = "the loss" if not isfinite(metrics.loss[0]) else "the gradients of a finite loss"
        raise TrainingError(
            f"step {number + 1}: {loss} of {where} is not finite (process {self.here.rank}); lower optimizer.lr, clip "
            "gradients (train.clip = 1.0) or warm up"
        )


def adamw(model: nn.Module, recipe: Recipe) -> AdamW:
    """Create AdamW for the trainable parameters of a model."""
    settings = recipe.optimizer
    trained = [value for value in model.parameters() if value.requires_grad]
    return AdamW(trained, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)


def _named(batch: Any, sources: Sequence[str]) -> str:
    """Return a text that lists the source, episode and step of each sample."""
    places = zip(batch.source, batch.episode, batch.step, strict=True)
    return ", ".join(f"{sources[int(s)]} episode {int(e)} step {int(t)}" for s, e, t in places)
