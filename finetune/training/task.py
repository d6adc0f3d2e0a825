"""A recipe with its locked mixture. Both are checked before the first training step."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow.compute as pc

from finetune.data import augment
from finetune.data.loader import Loader, LoaderOptions, Part
from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint
from finetune.models.action_statistics import ActionStatistics
from finetune.models.config import OpenVLAConfig
from finetune.models.oft import OFTSettings
from finetune.recipe import Recipe
from finetune.training.parallel import TrainingProcess
from schemas.errors import MixtureError, UsageError
from schemas.mixture import lock as locks
from schemas.mixture.lock import Lock
from stats.formats import openvla_entry
from stats.locked import locked_statistics
from stats.norm import Method, NormStats

METHODS: tuple[Method, ...] = ("bounds_q99", "bounds")  # normalizations that a policy can undo


@dataclass(frozen=True)
class Task:
    """A recipe and the locked mixture of its training data."""

    recipe: Recipe
    lock_path: Path
    lock: Lock

    @classmethod
    def of(cls, recipe: Recipe, lock_path: Path) -> Self:
        """Read the lock. Raises MixtureError if OpenVLA cannot be trained on it."""
        lock, table = locks.read(lock_path)
        if lock.method not in METHODS:
            raise MixtureError(
                f"{lock_path}: actions are normalized by '{lock.method}', OpenVLA requires {' or '.join(METHODS)}: "
                f'lock the mixture with [normalize] method = "{METHODS[0]}"'
            )
        shown = table.filter(pc.greater(table["steps"], 0))
        silent = shown.filter(pc.equal(pc.utf8_trim_whitespace(shown["instruction"]), ""))
        if len(silent):
            fix = " and ".join(f'instructions != "{text}"' for text in silent["instruction"].unique().to_pylist())
            raise MixtureError(
                f"{lock_path}: {len(silent)} of {len(shown)} episodes have no instruction, first "
                f"{silent['source'][0]}, {silent['id'][0]}: lock the mixture with filter = '{fix}'"
            )
        return cls(recipe, lock_path, lock)

    def check_dims(self) -> None:
        """Raise MixtureError if the mixture's number of action dimensions is not the one that the model expects.

        That number is `model.action_dims` of the recipe. If it is None, it is read from the checkpoint's statistics.
        A new small model accepts any number.
        """
        declared, dims = self.recipe.model.action_dims, len(self.lock.dims)
        known = {declared} if declared is not None else self._known_dims()
        if known and dims not in known:
            raise MixtureError(
                f"{self.lock_path}: actions have {dims} numbers ({', '.join(self.lock.dims)}), the model expects "
                f"{' or '.join(map(str, sorted(known)))}: lock a view with as many, or set "
                f"[model] action_dims = {dims} to train the model on these"
            )

    def _known_dims(self) -> set[int]:
        if self.recipe.model.is_made_here:
            return set()
        folder = checkpoint.local_folder(self.recipe.model.base, {}, wanted=("*.json",))
        statistics = checkpoint.statistics(folder) or OpenVLAConfig.of(folder).norm_stats
        return {len(norm.names) for norm in ActionStatistics.of(statistics, where=str(folder)).known.values()}

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images that the recipe sets, with random augmentation if it is enabled."""
        return Preprocessing(
            method=self.recipe.data.resize, augment=augment.Augmentation() if self.recipe.data.augment else None
        )

    def check_batch(self, here: TrainingProcess) -> None:
        """Raise UsageError if the batch cannot be split evenly among the processes."""
        batch, micro = self.recipe.train.batch, self.micro(here)
        if batch % (here.world * micro):
            raise UsageError(
                f"train.batch = {batch}: cannot be split among {here.world} processes of {micro} samples; "
                f"use a multiple of {here.world * micro}"
            )

    def micro(self, here: TrainingProcess) -> int:
        """Return the number of samples that a process computes at once."""
        return self.recipe.train.micro or max(1, self.recipe.train.batch // here.world)

    def loader(self, here: TrainingProcess, *, part: Part, augmented: bool) -> Loader:
        """Open the loader of process `here`. If not `augmented`, images and instructions are those of prediction."""
        data = self.recipe.data
        preprocessing = self.preprocessing if augmented else self.preprocessing.acting()
        options = LoaderOptions(
            cameras=data.cameras,
            history=data.history,
            chunk=data.chunk,
            state=self.recipe.oft is not None and self.recipe.oft.proprio,
            ends=data.ends,
            missing=data.missing,
            corrupt=data.corrupt,
            paraphrases=augmented,
            preprocessing=preprocessing,
        )
        return Loader(
            self.lock_path,
            options,
            batch_size=self.micro(here),
            part=part,
            rank=here.rank,
            world=here.world,
            threads=data.threads,
        )

    def oft(self, loader: Loader) -> OFTSettings | None:
        """Return how the model of the recipe predicts chunks; None if it predicts tokens one after the other."""
        wants_state = self.recipe.oft is not None and self.recipe.oft.proprio
        proprio = loader.state_norm(loader.sources[0]).names if wants_state else ()
        return oft_settings(self.recipe, method=self.lock.method, actions=self.lock.dims, proprio=proprio)

    def norm_stats(self, loader: Loader) -> dict[str, Any]:
        """Return the content of `dataset_statistics.json`: each source's statistics in the mixture's dimensions."""
        return {name: self._statistics(name, loader.norm(name)) for name in loader.sources}

    def _statistics(self, source: str, norm: NormStats) -> dict[str, Any]:
        return openvla_entry(locked_statistics(self.lock, source), action=norm)


def oft_settings(
    recipe: Recipe, *, method: Method, actions: tuple[str, ...], proprio: tuple[str, ...]
) -> OFTSettings | None:
    """Return how the model of a recipe predicts chunks of these actions; None if it is not OpenVLA-OFT."""
    oft = recipe.oft
    if oft is None:
        return None
    return OFTSettings(
        head=oft.head,
        chunk=recipe.data.chunk,
        method=method,
        actions=actions,
        proprio=proprio,
        film=oft.film,
        film_pads=oft.film_pads,
        cameras=recipe.data.cameras,
        history=recipe.data.history,
    )
