"""`oxe train`: from a recipe and a locked mixture to checkpoints; what was stopped goes on where it was."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from transformers.utils.logging import disable_progress_bar

from finetune.data.torch_loader import TorchLoader
from finetune.memory import enough_memory
from finetune.models import base, lora
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.recipe import Recipe
from finetune.training import folders, licences, parallel, snapshots
from finetune.training.batches import Collator, MicroBatch, evaluated, feed
from finetune.training.engine import Engine, Stepped, adamw
from finetune.training.folders import BASE, Run
from finetune.training.logs import Log
from finetune.training.metrics import Judge
from finetune.training.parallel import Place
from finetune.training.snapshots import Position
from finetune.training.stopping import Stop, asked_to_stop
from finetune.training.task import Task
from schemas.errors import TrainingError

Watch = Callable[[int, Mapping[str, Any]], None]  # the first process tells it the steps done, and what was logged last
LOWER = (
    'lower train.micro, set train.checkpoint_activations = true or train.precision = "bf16", train adapters '
    '(train.mode = "lora"), or share the model among more processes (train.parallel = "fsdp")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How far a run came, and what was logged last, by kind (`train`, `eval`).

    `seconds` is None where there was nothing left to do; `broken` counts images that could not be decoded.
    """

    out: str
    checkpoint: str
    step: int
    finished: bool
    seconds: float | None = None
    broken: Mapping[str, int] = field(default_factory=dict)
    logged: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give all that there is to say."""
        run = {key: value for key, value in asdict(self).items() if key != "logged" and value not in (None, {})}
        return {**run, **self.logged}


def silent(*_: Any) -> None:
    """Watch nothing."""


def train(
    recipe: Recipe,
    lock: Path,
    out: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
    watch: Watch = silent,
) -> Trained | None:
    """Train, or go on with what `out` holds, and tell how far it came.

    Started by torchrun, all processes call this; only the first one says what begins, watches, and has something to
    tell. SIGTERM and Ctrl-C end it behind a step, with a checkpoint.
    """
    disable_progress_bar()  # that of transformers, for each file it writes
    task = Task.of(recipe, lock)
    task.check_dims()
    with parallel.place() as here, folders.alone(out, here), enough_memory(TrainingError, LOWER):
        task.check_batch(here)
        run = folders.prepare(out, task, here=here, overwrite=overwrite)
        if run.last is not None and run.position.step >= recipe.train.steps:
            done = Trained(out=str(out), checkpoint=str(run.last), step=run.position.step, finished=True)
            return done if here.is_first else None
        with asked_to_stop() as stop:
            session = Session.of(task, run, here)
            if here.is_first:
                folders.describe(out, task)
                for line in session.told():
                    say(line)
            found = Training(session, watch).run(stop)
        return found if here.is_first else None


@dataclass(frozen=True, slots=True)
class Session:
    """One process's part of a run: data, model and optimizer, as new or as the last checkpoint left them."""

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
        judge = Judge(drawn.sources, [drawn.norm(name) for name in drawn.sources], collate.config.action_tokenizer)
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
        model, optimizer = self.engine.model, self.engine.optimizer
        return folders.write(self.run, self.task, model, optimizer=optimizer, here=self.here, position=position)


class Training:
    """The steps of a run, what is logged of them, and its checkpoints."""

    def __init__(self, session: Session, watch: Watch) -> None:
        """Begin where the session is."""
        self.session, self.watch = session, watch
        self.recipe, self.engine, here = session.task.recipe, session.engine, session.here
        position, nothing = session.run.position, session.engine.judge.nothing()
        self.first, self.is_first = position.step, here.is_first
        has_sums = bool(position.sums) and self.is_first
        self.sums = nothing.unflat(np.array(position.sums)) if has_sums else nothing  # not logged yet
        self.began = self.since = perf_counter()
        self.counted = self.first
        self.logged: dict[str, Any] = {}
        self.log: Log | None = None

    def run(self, stop: Stop) -> Trained:
        """Do what is left, or what can be done until it is to stop."""
        if not self.is_first:
            return self._run(stop)
        board = self.recipe.train.tensorboard
        with closing(Log(self.session.run.out, step=self.first, tensorboard=board)) as self.log:
            return self._run(stop)

    def _run(self, stop: Stop) -> Trained:
        session, steps = self.session, self.recipe.train.steps
        parts_of_steps = feed(session.loader, session.collate, parts=session.parts)
        checkpoint = None
        for done, parts in enumerate(parts_of_steps, start=self.first + 1):
            stepped = self.engine.step(parts, number=done - 1, stop=stop.is_asked)
            is_last = done == steps or stepped.must_stop
            self._count(done, stepped)
            if session.held_out is not None and (done % self.recipe.eval.every == 0 or done == steps):
                self._evaluate(done, session.held_out, spare=parts[0])
            if done % self.recipe.train.save_every == 0 or is_last:
                checkpoint = self._save(done, parts)
            if self.is_first:
                self.watch(done, self.logged)
            if is_last:
                break
        return Trained(
            out=str(session.run.out),
            checkpoint=str(checkpoint),
            step=done,
            finished=done == steps,
            seconds=round(perf_counter() - self.began, 3),
            broken=dict(session.loader.loader.broken),
            logged=self.logged,
        )

    def _count(self, done: int, stepped: Stepped) -> None:
        """Add a step to the sums, and log them when it is time."""
        self.sums = self.sums.merge(stepped.metrics)
        settings, now = self.recipe.train, perf_counter()
        if done % settings.log_every and done != settings.steps:
            return
        summed = self.engine.summed(self.sums)
        figures = {
            **summed.summary(),
            "lr": stepped.lr,
            "grad_norm": stepped.grad_norm,
            "samples_per_second": round(settings.batch * (done - self.counted) / (now - self.since), 3),
            "seconds": round(now - self.began, 3),
        }
        self._write({"kind": "train", "step": done, **figures})
        self.sums, self.since, self.counted = self.engine.judge.nothing(), now, done

    def _evaluate(self, done: int, held_out: TorchLoader, *, spare: MicroBatch) -> None:
        """Judge and log what is predicted for what was held out."""
        settings = self.recipe.eval
        limit = max(1, settings.batches * self.session.parts)
        found = self.engine.evaluate(evaluated(held_out, self.session.collate, limit=limit, spare=spare[1]))
        sources = found.by_source(self.engine.judge)
        self._write({"kind": "eval", "step": done, "part": settings.part, **found.summary(), "sources": sources})
        self.since = perf_counter()

    def _save(self, done: int, parts: list[MicroBatch]) -> Path:
        """Write a checkpoint; sums that are not logged yet are put together in the first process."""
        summed = self.engine.summed(self.sums)
        self.sums = summed if self.is_first else self.engine.judge.nothing()
        return self.session.save(done, draws=int(parts[-1][0].end), sums=summed.flat().tolist())

    def _write(self, entry: dict[str, Any]) -> None:
        self.logged = {**self.logged, entry["kind"]: {key: value for key, value in entry.items() if key != "kind"}}
        if self.log is not None:
            self.log(entry)


def _model(task: Task, run: Run, *, here: Place, norm_stats: dict[str, Any]) -> tuple[nn.Module, Collator]:
    """Give all processes what is trained, and what makes its inputs; of a shared model, the first one alone reads."""
    recipe, place = task.recipe, run.out / BASE
    settings = recipe.model.of_checkpoint(place) if place.exists() else recipe.model
    here.wait()  # until all have looked
    way = parallel.way(recipe.train.parallel, mode=recipe.train.mode, world=here.world)
    read: list[nn.Module] = []

    def reads() -> Collator:
        model = base.build(settings, norm_stats=norm_stats, seed=recipe.seed)
        if recipe.train.mode == "lora" and recipe.model.is_made_here:
            _keep(model, place, here=here)
        read.append(_trained(model, recipe))
        if run.last is not None:
            snapshots.load_weights(run.last, read[0])
        return Collator(model.own_processor(), model.config, recipe.data.cameras[0])

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
        model.activation_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(recipe.seed)
    trained = lora.apply(model, recipe.lora) if recipe.train.mode == "lora" else model
    lora.trainable(trained, recipe.train.mode)
    return trained
