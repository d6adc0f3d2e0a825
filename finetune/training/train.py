"""Trains a model from a recipe and a locked mixture (`oxe train`), and continues interrupted runs."""

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

from finetune.data.loader import Loader
from finetune.data.torch_loader import TorchLoader
from finetune.memory import enough_memory
from finetune.models import base, components, layouts, lora, weights
from finetune.models.checkpoint import weight_files
from finetune.models.oft import OFTSettings
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.recipe import Recipe
from finetune.training import folders, licences, parallel, snapshots
from finetune.training.batches import Collator, MicroBatch, evaluation_batches, feed
from finetune.training.ema import WeightAverage
from finetune.training.engine import StepResult, TrainingEngine, adamw
from finetune.training.folders import BASE, RunFolder
from finetune.training.logs import Log
from finetune.training.metrics import Judge
from finetune.training.parallel import TrainingProcess
from finetune.training.snapshots import Position
from finetune.training.stopping import Stop, stop_on_signals
from finetune.training.task import Task
from schemas.errors import TrainingError

Watch = Callable[[int, Mapping[str, Any]], None]  # gets the number of steps done, and the last log entries
LOWER = (
    'lower train.micro, set train.checkpoint_activations = true or train.precision = "bf16", train adapters '
    '(train.mode = "lora"), or share the model among more processes (train.parallel = "fsdp")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The result of a run: its last step and checkpoint, and the last log entry of each kind (`train`, `eval`).

    `seconds` is None if the run was already finished. `broken` counts how often each damaged image was drawn.
    """

    out: str
    checkpoint: str
    step: int
    finished: bool
    seconds: float | None = None
    broken: Mapping[str, int] = field(default_factory=dict)
    logged: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are neither None nor empty, as JSON values."""
        run = {key: value for key, value in asdict(self).items() if key != "logged" and value not in (None, {})}
        return {**run, **self.logged}


def silent(*_: Any) -> None:
    """Do nothing."""


def train(
    recipe: Recipe,
    lock: Path,
    out: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
    watch: Watch = silent,
) -> Trained | None:
    """Train a model, or continue the run in `out`, and return the result.

    Under torchrun, all processes call this. Only the first one calls `say` and `watch`, and returns a result. The
    others return None. SIGTERM and Ctrl-C end the run after the current step, and a checkpoint is written.
    """
    disable_progress_bar()  # transformers would show a progress bar for each file it writes
    task = Task.of(recipe, lock)
    task.check_dims()
    with parallel.joined() as here, folders.alone(out, here), enough_memory(TrainingError, LOWER):
        task.check_batch(here)
        run = folders.prepare(out, task, here=here, overwrite=overwrite)
        if run.last is not None and run.position.step >= recipe.train.steps:
            done = Trained(out=str(out), checkpoint=str(run.last), step=run.position.step, finished=True)
            return done if here.is_first else None
        with stop_on_signals() as stop:
            result = _run(task, run, here, stop=stop, say=say, watch=watch)  # it releases the model when it returns
        return result if here.is_first else None


def _run(
    task: Task, run: RunFolder, here: TrainingProcess, *, stop: Stop, say: Callable[[str], None], watch: Watch
) -> Trained:
    """Open the data and the model, and run the remaining steps."""
    session = Session.of(task, run, here)
    if here.is_first:
        folders.describe(run.out, task)
        for line in session.summary():
            say(line)
    return Training(session, watch).run(stop)


@dataclass(frozen=True, slots=True)
class Session:
    """The loaders, model and optimizer of one process, either new or restored from the last checkpoint."""

    task: Task
    run: RunFolder
    here: TrainingProcess
    engine: TrainingEngine
    collate: Collator
    loader: TorchLoader
    held_out: TorchLoader | None

    @classmethod
    def of(cls, task: Task, run: RunFolder, here: TrainingProcess) -> Self:
        """Open the data, build the model, and restore both from the last checkpoint."""
        recipe, workers = task.recipe, task.recipe.data.workers
        drawn = task.loader(here, part="train", augmented=True)
        held_out = task.loader(here, part=recipe.eval.part, augmented=False) if recipe.eval.every else None
        if run.last is not None:
            drawn.load_state_dict(run.position.loader)
        spread, collate = _model(task, run, here=here, loader=drawn)
        optimizer = adamw(spread, recipe)
        average = WeightAverage.of(spread, recipe.train.ema)
        torch.manual_seed(recipe.seed + here.rank)  # only dropout uses it
        if run.last is not None:
            snapshots.restore(run.last, parallel.inside(spread), optimizer, here=here)
            average.restore(run.last)
        judge = Judge(drawn.sources, [drawn.norm(name) for name in drawn.sources], collate.config.action_tokenizer)
        return cls(
            task=task,
            run=run,
            here=here,
            engine=TrainingEngine(spread, optimizer, recipe, judge, here, average),
            collate=collate,
            loader=TorchLoader(drawn, workers=workers),
            held_out=TorchLoader(held_out, workers=workers) if held_out else None,
        )

    @property
    def parts(self) -> int:
        """The number of batches that this process computes in a step."""
        return self.task.recipe.train.batch // (self.here.world * self.loader.loader.batch_size)

    def summary(self) -> Iterator[str]:
        """Yield the lines of text that `say` shows before the first step."""
        recipe, values = self.task.recipe, list(self.engine.model.parameters())
        trained = sum(value.numel() for value in values if value.requires_grad)
        yield (
            f"{recipe.name}: {recipe.train.mode}, {trained:,} of {sum(value.numel() for value in values):,} weights; "
            f"{recipe.train.steps} steps of {recipe.train.batch} samples, {self.loader.loader.batch_size} at a time in "
            f"each process ({self.here.world}) on {self.here.device.type}"
        )
        held_out = f", evaluated on {self.held_out.loader.steps} of '{recipe.eval.part}'" if self.held_out else ""
        yield f"{self.task.lock.name}: {self.loader.loader.steps} training steps{held_out}"
        yield from licences.described((*licences.of_weights(recipe.model), *licences.of_data(self.task.lock)))
        if self.run.last is not None:
            yield f"continuing after step {self.run.position.step}: {self.run.last}"

    def save(self, step: int, *, draws: int, sums: list[float]) -> Path:
        """Write a checkpoint after a step. All processes must call this."""
        position = Position(step=step, loader={**self.loader.state_dict(), "draws": draws}, sums=sums)
        engine = self.engine
        return folders.write(
            self.run,
            self.task,
            engine.model,
            optimizer=engine.optimizer,
            average=engine.average,
            here=self.here,
            position=position,
        )


class Training:
    """Runs the steps of a run, logs them, and writes checkpoints."""

    def __init__(self, session: Session, watch: Watch) -> None:
        """Start at the session's position."""
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
        """Run the remaining steps, or fewer if a stop is requested."""
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
            stepped = self.engine.step(parts, number=done - 1, stop=stop.is_requested)
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

    def _count(self, done: int, stepped: StepResult) -> None:
        """Add the metrics of a step to the sums. Every `log_every` steps, log the sums and reset them."""
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
        """Evaluate the held-out steps, and log the result."""
        settings = self.recipe.eval
        limit = max(1, settings.batches * self.session.parts)
        metrics = self.engine.evaluate(evaluation_batches(held_out, self.session.collate, limit=limit, spare=spare[1]))
        sources = metrics.by_source(self.engine.judge)
        self._write({"kind": "eval", "step": done, "part": settings.part, **metrics.summary(), "sources": sources})
        self.since = perf_counter()

    def _save(self, done: int, parts: list[MicroBatch]) -> Path:
        """Write a checkpoint. The sums that are not logged yet are added up in the first process, which saves them."""
        summed = self.engine.summed(self.sums)
        self.sums = summed if self.is_first else self.engine.judge.nothing()
        return self.session.save(done, draws=int(parts[-1][0].end), sums=summed.flat().tolist())

    def _write(self, entry: dict[str, Any]) -> None:
        self.logged = {**self.logged, entry["kind"]: {key: value for key, value in entry.items() if key != "kind"}}
        if self.log is not None:
            self.log(entry)


def _model(task: Task, run: RunFolder, *, here: TrainingProcess, loader: Loader) -> tuple[nn.Module, Collator]:
    """Return the model and its collator. With FSDP, only the first process reads the weights."""
    recipe, base_folder, oft = task.recipe, run.out / BASE, task.oft(loader)
    settings = recipe.model.of_checkpoint(base_folder) if base_folder.exists() else recipe.model
    here.wait()  # before the first process creates the folder
    way = parallel.way(recipe.train.parallel, mode=recipe.train.mode, world=here.world)
    read: list[nn.Module] = []

    def build() -> Collator:
        model = base.build(settings, norm_stats=task.norm_stats(loader), seed=recipe.seed)
        if recipe.train.mode == "lora" and recipe.model.is_made_here:
            _save_base(model, base_folder, here=here)
        read.append(_trained(model, recipe, oft))
        if run.last is not None:
            if recipe.train.mode == "lora":
                lora.check_base(run.last, model.config)
            snapshots.load_weights(run.last, read[0])
        processor, cameras = model.own_processor(), recipe.data.cameras
        return Collator(processor=processor, config=model.config, cameras=cameras, oft=oft, seed=recipe.seed)

    if way != "fsdp":
        collate = build()
        return parallel.spread(read[0], way, here=here), collate
    collate = here.on_first(build)
    outline = _trained(base.build_empty(settings, collate.config), recipe, oft)
    weights = read[0] if read else None
    return parallel.share(outline, weights, here=here, precision=recipe.train.precision), collate


def _save_base(model: OpenVLAForActionPrediction, folder: Path, *, here: TrainingProcess) -> None:
    """Write a base with random weights to the run's folder, because its adapters cannot be used without it."""
    if here.is_first and not folder.exists():
        with snapshots.writing(folder) as temporary:
            model.save_pretrained(temporary)
        model.config.weights_digest = weights.checked_digest(weight_files(folder))
    model.name_or_path = model.config.name_or_path = str(folder)


def _trained(model: OpenVLAForActionPrediction, recipe: Recipe, oft: OFTSettings | None) -> nn.Module:
    """Add adapters in mode "lora" and the modules of OFT, and set which parameters are trainable.

    Gives the same model in all processes. Raises UsageError if the base is OFT and predicts otherwise than the recipe.
    """
    if recipe.train.checkpoint_activations:
        model.checkpoint_activations()
    torch.manual_seed(recipe.seed)
    components.merge_vision(model)
    trained = lora.apply(model, recipe.lora) if recipe.train.mode == "lora" else model
    if model.oft is not None:
        layouts.check_same(model.oft, oft, where=f"[oft] of {recipe.name}")
        model.oft = oft
    elif oft is not None:
        model.extend(oft)
    lora.trainable(trained, recipe.train.mode)
    return trained
