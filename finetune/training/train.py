"""`oxe train`: from a recipe and a locked mixture to checkpoints; what was stopped goes on where it was."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from transformers.utils.logging import disable_progress_bar

from finetune.data.torch_loader import TorchLoader
from finetune.memory import enough_memory
from finetune.recipe import Recipe
from finetune.training import folders, parallel
from finetune.training.engine import Part, Stepped
from finetune.training.feed import evaluated, feed
from finetune.training.logs import Log
from finetune.training.session import Session
from finetune.training.stopping import Stop, asked_to_stop
from finetune.training.task import Task
from schemas.errors import TrainingError

Watch = Callable[[int, Mapping[str, Any]], None]  # the first process tells it the steps done, and what was logged last
LOWER = (
    'lower train.micro, set train.checkpoint_activations = true or train.precision = "bf16", train adapters '
    '(train.mode = "lora"), or share the model among more processes (train.parallel = "fsdp")'
)


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
) -> dict[str, Any] | None:
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
            done = {"out": str(out), "checkpoint": str(run.last), "step": run.position.step, "finished": True}
            return done if here.is_first else None
        with asked_to_stop() as stop:
            session = Session.of(task, run, here)
            if here.is_first:
                folders.describe(out, task)
                for line in session.told():
                    say(line)
            found = Training(session, watch).run(stop)
        return found if here.is_first else None


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

    def run(self, stop: Stop) -> dict[str, Any]:
        """Do what is left, or what can be done until it is to stop."""
        if not self.is_first:
            return self._run(stop)
        board = self.recipe.train.tensorboard
        with closing(Log(self.session.run.out, step=self.first, tensorboard=board)) as self.log:
            return self._run(stop)

    def _run(self, stop: Stop) -> dict[str, Any]:
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
        out = {"out": str(session.run.out), "checkpoint": str(checkpoint), "step": done, "finished": done == steps}
        broken = {"broken": dict(session.loader.loader.broken)} if session.loader.loader.broken else {}
        return {**out, "seconds": round(perf_counter() - self.began, 3), **broken, **self.logged}

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

    def _evaluate(self, done: int, held_out: TorchLoader, *, spare: Part) -> None:
        """Judge and log what is predicted for what was held out."""
        settings = self.recipe.eval
        limit = max(1, settings.batches * self.session.parts)
        found = self.engine.evaluate(evaluated(held_out, self.session.collate, limit=limit, spare=spare[1]))
        sources = found.by_source(self.engine.judge)
        self._write({"kind": "eval", "step": done, "part": settings.part, **found.summary(), "sources": sources})
        self.since = perf_counter()

    def _save(self, done: int, parts: list[Part]) -> Path:
        """Write a checkpoint; sums that are not logged yet are put together in the first process."""
        summed = self.engine.summed(self.sums)
        self.sums = summed if self.is_first else self.engine.judge.nothing()
        return self.session.save(done, draws=int(parts[-1][0].end), sums=summed.flat().tolist())

    def _write(self, entry: dict[str, Any]) -> None:
        self.logged = {**self.logged, entry["kind"]: {key: value for key, value in entry.items() if key != "kind"}}
        if self.log is not None:
            self.log(entry)
