"""One process's part of a run: data, model and optimizer, as new or as the last checkpoint left them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from finetune.data.torch_loader import TorchLoader
from finetune.models import base, lora
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.recipe import Recipe
from finetune.training import folders, licences, parallel, snapshots
from finetune.training.batches import Collator
from finetune.training.engine import Engine, adamw
from finetune.training.folders import BASE, Run
from finetune.training.metrics import Judge
from finetune.training.parallel import Place
from finetune.training.snapshots import Position
from finetune.training.task import Task
from schemas.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Session:
    """What the steps of a run are done with."""

    task: Task
    run: Run
    here: Place
    engine: Engine
    collate: Collator
    loader: TorchLoader
    held_out: TorchLoader | None

    @classmethod
    def of(cls, task: Task, run: Run, here: Place) -> Self:
        """Open the data, build the model, and give both what the last checkpoint holds."""
        recipe, workers = task.recipe, task.recipe.data.workers
        drawn = task.loader(here, part="train", augmented=True)
        held_out = task.loader(here, part=recipe.eval.part, augmented=False) if recipe.eval.every else None
        if run.last is not None:
            drawn.load_state_dict(run.position.loader)
        spread, collate = _model(task, run, here=here, norm_stats=task.norm_stats(drawn))
        optimizer = adamw(spread, recipe)
        torch.manual_seed(recipe.seed + here.rank)  # of dropout alone
        if run.last is not None:
            snapshots.restore(run.last, parallel.inside(spread), optimizer, here=here)
        judge = Judge(drawn.sources, [drawn.norm(name) for name in drawn.sources], collate.actions)
        return cls(
            task=task,
            run=run,
            here=here,
            engine=Engine(spread, optimizer, recipe, judge, here),
            collate=collate,
            loader=TorchLoader(drawn, workers=workers),
            held_out=TorchLoader(held_out, workers=workers) if held_out else None,
        )

    @property
    def parts(self) -> int:
        """Count the batches of which this process makes its share of a step."""
        return self.task.recipe.train.batch // (self.here.world * self.loader.loader.batch_size)

    def told(self) -> Iterator[str]:
        """Say to a person what is about to begin."""
        recipe, values = self.task.recipe, list(self.engine.model.parameters())
        trained = sum(value.numel() for value in values if value.requires_grad)
        yield (
            f"{recipe.name}: {recipe.train.mode}, {trained:,} of {sum(value.numel() for value in values):,} weights; "
            f"{recipe.train.steps} steps of {recipe.train.batch} samples, {self.loader.loader.batch_size} at a time in "
            f"each process ({self.here.world}) on {self.here.device.type}"
        )
        held_out = f", evaluated on {self.held_out.loader.steps} of '{recipe.eval.part}'" if self.held_out else ""
        yield f"{self.task.lock.name}: {self.loader.loader.steps} steps to learn from{held_out}"
        yield from licences.said((*licences.of_weights(recipe.model), *licences.of_data(self.task.lock)))
        if self.run.last is not None:
            yield f"going on behind step {self.run.position.step}: {self.run.last}"

    def save(self, step: int, *, draws: int, sums: list[float]) -> Path:
        """Write a checkpoint behind a step, all processes together."""
        position = Position(step=step, loader={**self.loader.state_dict(), "draws": draws}, sums=sums)
        return folders.write(
            self.run,
            self.task,
            self.engine.model,
            optimizer=self.engine.optimizer,
            here=self.here,
            position=position,
        )


def _model(task: Task, run: Run, *, here: Place, norm_stats: dict[str, Any]) -> tuple[nn.Module, Collator]:
    """Give all processes what is trained, and what makes its inputs; of a shared model, the first one alone reads."""
    recipe, place = task.recipe, run.out / BASE
    settings = recipe.model.of_checkpoint(place) if place.exists() else recipe.model
    here.wait()  # until all have looked
    way = parallel.way(recipe.train.parallel, mode=recipe.train.mode, world=here.world)
    read: list[nn.Module] = []

    def reads() -> Collator:
        model = base.build(settings, norm_stats=norm_stats, seed=recipe.seed)
        if model.processor is None:
            raise CheckpointError(f"{recipe.model.base}: no tokenizer beside the weights; copy tokenizer.json there")
        if recipe.train.mode == "lora" and recipe.model.is_made_here:
            _keep(model, place, here=here)
        read.append(_trained(model, recipe))
        if run.last is not None:
            snapshots.load_weights(run.last, read[0])
        return Collator(model.processor, model.config, recipe.data.cameras[0])

    if way != "fsdp":
        collate = reads()
        return parallel.spread(read[0], way, here=here), collate
    collate = here.first_does(reads)
    outline = _trained(base.outlined(settings, collate.config), recipe)
    weights = read[0] if read else None
    return parallel.share(outline, weights, here=here, precision=recipe.train.precision), collate


def _keep(model: OpenVLAForActionPrediction, place: Path, *, here: Place) -> None:
    """Keep a base that is made here beside its adapters."""
    if here.is_first and not place.exists():
        with snapshots.writing(place) as folder:
            model.save_pretrained(folder)
    model.name_or_path = model.config.name_or_path = str(place)


def _trained(model: OpenVLAForActionPrediction, recipe: Recipe) -> nn.Module:
    """Add the adapters, if they are what is trained, and say what of the model is; the same in every process."""
    if recipe.train.checkpoint_activations:
        model.checkpoint_activations()
    torch.manual_seed(recipe.seed)
    trained = lora.apply(model, recipe.lora) if recipe.train.mode == "lora" else model
    lora.trainable(trained, recipe.train.mode)
    return trained
