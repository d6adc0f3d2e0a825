"""The learning rate of each step, as a function of the step alone: nothing to save, nothing to resume."""

from math import cos, pi

from finetune.recipe import OptimizerRecipe

COLD = 0.1  # of the rate, where a warm-up begins: OpenVLA-OFT's


def rate(optimizer: OptimizerRecipe, step: int, *, steps: int) -> float:
    """Give the learning rate of step `step`, counted from 0, of `steps`.

    A warm-up rises from a tenth; after it, `linear` and `cosine` fall to 0 at the end, a milestone counts from 0 too.

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
        case "multistep":
            return optimizer.gamma ** sum(step >= milestone for milestone in optimizer.milestones)
