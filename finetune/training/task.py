"""What a training needs, put together and checked before the first step."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow.compute as pc

from finetune.data import augment
from finetune.data.loader import Loader, LoaderOptions, Part
from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint
from finetune.models.acting import ActionStatistics
from finetune.models.config import OpenVLAConfig
from finetune.recipe import Recipe
from finetune.training.parallel import Place
from schemas.errors import MixtureError, UsageError
from schemas.mixture import lock as locks
from schemas.mixture.lock import Lock
from stats.formats import openvla_entry
from stats.norm import NormStats
from stats.record import Statistics

METHOD = "bounds_q99"  # what a policy of this kind undoes


@dataclass(frozen=True)
class Task:
    """A recipe and the locked mixture it is trained on."""

    recipe: Recipe
    lock_path: Path
    lock: Lock

    @classmethod
    def of(cls, recipe: Recipe, lock_path: Path) -> Self:
        """Read the lock, and refuse what this kind of model cannot learn."""
        lock, table = locks.read(lock_path)
        if lock.method != METHOD:
            raise MixtureError(
                f"{lock_path}: actions are normalized by '{lock.method}', and OpenVLA undoes '{METHOD}': lock the "
                f'mixture with [normalize] method = "{METHOD}"'
            )
        shown = table.filter(pc.greater(table["steps"], 0))
        silent = shown.filter(pc.equal(pc.utf8_trim_whitespace(shown["instruction"]), ""))
        if len(silent):
            fix = " and ".join(f'instructions != "{text}"' for text in silent["instruction"].unique().to_pylist())
            raise MixtureError(
                f"{lock_path}: {len(silent)} of {len(shown)} episodes have no instruction, the first is "
                f"{silent['source'][0]}, {silent['id'][0]}: lock the mixture with filter = '{fix}'"
            )
        return cls(recipe, lock_path, lock)

    def check_dims(self) -> None:
        """Refuse actions of another number of dimensions than the checkpoint was trained on, unless that is meant."""
        said, found = self.recipe.model.action_dims, len(self.lock.dims)
        known = {said} if said is not None else self._known_dims()
        if known and found not in known:
            raise MixtureError(
                f"{self.lock_path}: actions of {found} numbers ({', '.join(self.lock.dims)}) for a model of "
                f"{' or '.join(map(str, sorted(known)))}: lock a view that gives those, or say "
                f"[model] action_dims = {found} to train it on these"
            )

    def _known_dims(self) -> set[int]:
        if self.recipe.model.is_made_here:
            return set()
        folder = checkpoint.local_folder(self.recipe.model.base, {}, wanted=("*.json",))
        told = checkpoint.statistics(folder) or OpenVLAConfig.of(folder).norm_stats
        return {len(norm.names) for norm in ActionStatistics.of(told, where=str(folder)).known.values()}

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What happens to images before the model's own transform."""
        return Preprocessing(
            method=self.recipe.data.resize, augment=augment.Augmentation() if self.recipe.data.augment else None
        )

    def check_batch(self, here: Place) -> None:
        """Refuse a batch that the processes cannot share."""
        batch, micro = self.recipe.train.batch, self.micro(here)
        if batch % (here.world * micro):
            raise UsageError(
                f"train.batch = {batch}: cannot be shared by {here.world} processes, {micro} samples at a time; "
                f"take a multiple of {here.world * micro}"
            )

    def micro(self, here: Place) -> int:
        """Give the samples that a process computes at a time."""
        return self.recipe.train.micro or max(1, self.recipe.train.batch // here.world)

    def loader(self, here: Place, *, part: Part, augmented: bool) -> Loader:
        """Open the data for one of the processes."""
        data = self.recipe.data
        seen = self.preprocessing if augmented else self.preprocessing.acting()
        reading = LoaderOptions(
            cameras=data.cameras,
            chunk=data.chunk,
            ends=data.ends,
            missing=data.missing,
            corrupt=data.corrupt,
            preprocessing=seen,
        )
        return Loader(
            self.lock_path,
            reading,
            batch_size=self.micro(here),
            part=part,
            rank=here.rank,
            world=here.world,
            threads=data.threads,
        )

    def norm_stats(self, loader: Loader) -> dict[str, Any]:
        """Give `dataset_statistics.json`: what each source was normalized with, in the mixture's dimensions."""
        return {name: self._statistics(name, loader.norm(name)) for name in loader.sources}

    def _statistics(self, source: str, norm: NormStats) -> dict[str, Any]:
        key = self.lock.sources[source].statistics
        found = Statistics.from_json(self.lock.statistics[key], where=f"{self.lock_path}: statistics of {key}")
        return openvla_entry(found, action=norm)
