"""The learning rate of each step. It depends only on the step, so a checkpoint needs no state for it."""

from math import cos, pi

from finetune.recipe import OptimizerRecipe

COLD = 0.1  # fraction of the rate at which a warm-up starts, as in OpenVLA-OFT


def rate(optimizer: OptimizerRecipe, step: int, *, steps: int) -> float:
    """Return the learning rate of step `step` of `steps`, counted from 0.

    A warm-up starts at a tenth of the rate. After it, `linear` and `cosine` schedules fall towards 0, which they would
    reach one step after the last. Milestones are also counted from 0. With `warmup_like_original` they never act, as in
    OpenVLA-OFT: with a warm-up, its loop sets the rate in every step, which undoes what its scheduler has changed.

    >>> stairs = OptimizerRecipe(lr=1.0, schedule="multistep", milestones=(2,))
    >>> [rate(stairs, step, steps=4) for step in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    """
    return optimizer.lr * _warmed(optimizer, step) * _left(optimizer, step, steps)


def _warmed(optimizer: OptimizerRecipe, step: int) -> float:
    if step >= optimizer.warmup:
        return 1.0
    return COLD + (1 - COLD) * (step + 1) / optimizer.warmup


def _left(optimizer: OptimizerRecipe, step: int, steps: int) -> float:
    done = max(step - optimizer.warmup, 0) / (steps - optimizer.warmup)
    match optimizer.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - done
        case "cosine":
            return (1 + cos(pi * done)) / 2
        case "multistep" if optimizer.warmup_like_original:
            return 1.0
        case "multistep":
            return optimizer.gamma ** sum(step >= milestone for milestone in optimizer.milestones)
