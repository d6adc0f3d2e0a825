"""Checkpoints of a run. A run continues from a checkpoint with the same results as without an interruption.

Each checkpoint is a folder that is written atomically.
"""

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from finetune.models.checkpoint import read_json, weight_files, write_json
from finetune.models.weights import check_finite
from finetune.training.parallel import TrainingProcess, gathered, like
from schemas.errors import CheckpointError, TrainingError
from schemas.files import durable

STATE = "training"  # the folder in a checkpoint that contains the state of the training
MOMENTS = ("exp_avg", "exp_avg_sq")  # the two moments of AdamW
POSITION, WEIGHTS, RNG = "position.json", "weights.safetensors", "rng.safetensors"
PREFIX = "step-"
WHOLE_MODEL = "config.json"  # file of a checkpoint that contains more than adapters


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a run: the number of steps done, the loader's state, and the sums that are not logged yet."""

    step: int
    loader: dict[str, Any]
    sums: list[float]


# Folders


def snapshots(out: Path) -> list[Path]:
    """List the checkpoints of a run, from the oldest to the newest."""
    return sorted(path for path in out.glob(f"{PREFIX}*") if (path / STATE / POSITION).exists())


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to write a checkpoint to. At the end it is synced to disk and renamed to `target`.

    Raises TrainingError if the checkpoint cannot be written. In that case the temporary folder is removed.
    """
    try:
        with durable.replacing_folder(target) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{target}: cannot be written ({error}); earlier checkpoints are complete") from error


def sweep(out: Path, *, keep: int | None = None) -> None:
    """Remove unfinished checkpoints. If `keep` is given, also remove all but the last `keep` finished ones."""
    durable.sweep(out)
    for path in snapshots(out)[:-keep] if keep else []:
        durable.remove_folder(path)


# Training state


def save(
    folder: Path | None, model: nn.Module, optimizer: Optimizer, *, here: TrainingProcess, position: Position
) -> None:
    """Write the optimizer's state, the random states of all processes and the position.

    All processes must call this. `folder` is None in all processes but the first.
    """
    for moment in MOMENTS:
        values = gathered(_moments(model, optimizer, moment), here=here)
        if folder is not None:
            save_file(values, folder / STATE / f"{moment}.safetensors")
        del values
    states = {f"cpu.{rank}": row for rank, row in enumerate(here.gather(torch.get_rng_state()))}
    if here.device.type == "cuda":
        rows = here.gather(torch.cuda.get_rng_state())
        states |= {f"cuda.{rank}": row for rank, row in enumerate(rows)}
    if folder is not None:
        save_file(states, folder / STATE / RNG)
        write_json(folder / STATE / POSITION, asdict(position))


def position(folder: Path) -> Position:
    """Read the position of a checkpoint. Raises CheckpointError if it is not valid."""
    content = read_json(folder / STATE / POSITION)
    try:
        return Position(step=int(content["step"]), loader=dict(content["loader"]), sums=list(content["sums"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE / POSITION}: damaged ({error!r})") from error


def restore(folder: Path, model: nn.Module, optimizer: Optimizer, *, here: TrainingProcess) -> None:
    """Restore the state of the optimizer and the random state of this process.

    If the checkpoint was written by fewer processes, an additional process keeps the random state that it has.
    """
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    step = torch.tensor(float(position(folder).step))
    for moment in MOMENTS:
        for name, value in read(folder / STATE / f"{moment}.safetensors", parameters):
            state = optimizer.state[parameters[name]]
            state.setdefault("step", step.clone())
            state[moment] = like(value, parameters[name])
    with _opened(folder / STATE / RNG) as file:
        known = set(file.keys())
        if f"cpu.{here.rank}" in known:
            torch.set_rng_state(file.get_tensor(f"cpu.{here.rank}"))
        if here.device.type == "cuda" and f"cuda.{here.rank}" in known:
            torch.cuda.set_rng_state(file.get_tensor(f"cuda.{here.rank}"))


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the weights, bit for bit. Weights that the checkpoint does not contain keep their values.

    Weights in `training/` are used rather than those of the checkpoint's model, which may be an average.

    Raises CheckpointError if the checkpoint lacks a weight that is trained, or has values that are not finite.
    """
    own, parameters = folder / STATE / WEIGHTS, dict(model.named_parameters())
    loaded: set[str] = set()
    files = [own] if own.exists() else []
    if (folder / WHOLE_MODEL).exists() or not files:
        files += weight_files(folder)
    check_finite(files)
    for path in files:
        for name, value in read(path, parameters.keys() - loaded):
            loaded.add(name)
            with torch.no_grad():
                parameters[name].copy_(value)
    trained = {name for name, value in parameters.items() if value.requires_grad}
    if missing := trained - loaded:
        raise CheckpointError(f"{folder}: {len(missing)} trained weights are missing, for example {min(missing)}")


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write trained weights by their names in the model, for checkpoints whose model has other names or an average."""
    save_file(dict(weights), folder / STATE / WEIGHTS)


def read(path: Path, wanted: Container[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file whose names are in `wanted`."""
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            if name in wanted:
                yield name, file.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); remove this checkpoint to continue from an earlier one"
        ) from error


def _moments(model: nn.Module, optimizer: Optimizer, moment: str) -> dict[str, Tensor]:
    named = {name: optimizer.state.get(value, {}) for name, value in model.named_parameters()}
    return {name: state[moment] for name, state in named.items() if moment in state}
