"""Creates the folder of a run and writes its checkpoints."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from finetune import recipe
from finetune.models import layouts, lora
from finetune.models.checkpoint import PREPROCESSING, STATISTICS, write_json
from finetune.models.components import is_component
from finetune.training import licences, snapshots
from finetune.training.ema import WeightAverage
from finetune.training.logs import LOG, TENSORBOARD
from finetune.training.parallel import TrainingProcess, gathered, inside
from finetune.training.snapshots import PREFIX, STATE, Position
from finetune.training.task import Task
from schemas.errors import UsageError
from schemas.files import durable
from schemas.files.folder import LocalFolder
from schemas.mixture import lock as locks

RECIPE, LOCK, BASE = "recipe.toml", "mixture.lock", "base"
OURS = (RECIPE, LOCK, f"{LOCK}.parquet", LOG, TENSORBOARD, BASE, f"{PREFIX}*", "tmp-*")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run, and the checkpoint from which the run continues; None for a new run."""

    out: Path
    last: Path | None

    @property
    def position(self) -> Position:
        """The position at which the run starts or continues."""
        return snapshots.position(self.last) if self.last else Position(step=0, loader={}, sums=[])


@contextmanager
def alone(out: Path, here: TrainingProcess) -> Iterator[None]:
    """Lock the folder for this run. Raises UsageError if another run is using it."""
    path = out.absolute()
    with ExitStack() as stack:
        if here.is_first:
            try:
                stack.enter_context(LocalFolder(path.parent).exclusive(f".{path.name}.running"))
            except BlockingIOError as error:
                raise UsageError(
                    f"{out}: another oxe train is running there; wait for it, or name another --out"
                ) from error
        yield


def prepare(out: Path, task: Task, *, here: TrainingProcess, overwrite: bool) -> RunFolder:
    """Create the folder of a run, or find the checkpoint from which an existing run continues.

    Raises UsageError if the folder contains another run, or files that are not from a run. The folder becomes a run
    only when `describe` writes the recipe to it, after everything was checked.
    """
    return RunFolder(out, here.on_first(lambda: _prepared(out, task, overwrite=overwrite)))


def _prepared(out: Path, task: Task, *, overwrite: bool) -> Path | None:
    ours = [path for name in OURS for path in out.glob(name)]
    if out.exists() and not (out.is_dir() and (ours or not any(out.iterdir()))):
        raise UsageError(f"{out}: is not empty and not a run of oxe train; name another --out")
    if (out / RECIPE).exists() and not overwrite:
        _check_same(out, task)
    else:
        for path in ours:
            durable.remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)
    durable.make_folder(out)
    snapshots.sweep(out, keep=task.recipe.train.keep)
    return next(reversed(snapshots.snapshots(out)), None)


def _check_same(out: Path, task: Task) -> None:
    """Raise UsageError if the recipe or the lock differs from that of the run in the folder."""
    before = recipe.load((out / RECIPE).read_text(), where=str(out / RECIPE))
    differences = before.differences(task.recipe)
    if (out / LOCK).read_bytes() != task.lock_path.read_bytes():
        differences.append(f"the lock ({task.lock_path} differs from {out / LOCK})")
    if differences:
        raise UsageError(
            f"{out}: contains a run of another recipe, which differs in {', '.join(differences)}; name another --out, "
            "or replace the run with --overwrite"
        )


def describe(folder: Path, task: Task) -> None:
    """Write the recipe and the lock to the folder of a run or of a checkpoint."""
    locks.copy(task.lock_path, folder / LOCK)
    durable.write(folder / RECIPE, task.recipe.to_toml(lock=LOCK).encode())


def write(
    run: RunFolder,
    task: Task,
    model: Any,
    *,
    optimizer: Any,
    average: WeightAverage,
    here: TrainingProcess,
    position: Position,
) -> Path:
    """Write a checkpoint, and remove the oldest ones. All processes must call this."""
    own, is_lora = inside(model), task.recipe.train.mode == "lora"
    target = run.out / f"{PREFIX}{position.step:08d}"
    with snapshots.writing(target) if here.is_first else nullcontext() as folder:
        if folder is not None:
            (folder / STATE).mkdir()
        apart = _adapters(own) if is_lora else average.weights if average.is_on else _components(own)
        if apart:
            trained = gathered(apart, here=here)
            if folder is not None:
                snapshots.save_weights(folder, trained)
            del trained
        average.save(folder, here=here)
        with average.in_place():
            state = gathered(_adapters(own) if is_lora else own.state_dict(), here=here)
        if folder is not None:
            _write_model(folder, own, state, is_lora=is_lora)
            describe(folder, task)
            write_json(folder / PREPROCESSING, task.preprocessing.to_json())
            write_json(folder / licences.LICENCES, licences.to_json(task.recipe.model, task.lock))
        snapshots.save(folder, own, optimizer, here=here, position=position)
    if here.is_first:
        snapshots.sweep(run.out, keep=task.recipe.train.keep)
    return target


def _components(model: nn.Module) -> dict[str, Tensor]:
    """Return the head, projectors and FiLM layers of OFT by name."""
    return {name: value for name, value in model.named_parameters() if is_component(name)}


def _adapters(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapters, and the head, projectors and FiLM layers of OFT, by name.

    Adapters of unused layers are included, because peft's files contain them.
    """
    return {name: value for name, value in model.named_parameters() if ".lora_" in name} | _components(model)


def _write_model(folder: Path, model: Any, state: dict[str, Any], *, is_lora: bool) -> None:
    if not is_lora:
        model.save_pretrained(folder, state_dict=state)
        return
    lora.save(model, folder, state={name: value for name, value in state.items() if not is_component(name)})
    base = model.get_base_model()
    if base.oft is not None:
        own = {name.removeprefix(lora.PREFIX): value for name, value in state.items() if is_component(name)}
        layouts.write(base, folder, own, is_adapter=True)
    write_json(folder / STATISTICS, base.norm_stats)
