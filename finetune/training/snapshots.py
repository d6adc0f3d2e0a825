"""Checkpoints that a run goes on from, exactly: each is a folder that appears whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
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
from finetune.training.parallel import Place, gathered, like
from schemas.errors import CheckpointError, TrainingError

STATE = "training"  # the folder, inside a checkpoint, of what only training needs
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's
POSITION, WEIGHTS, RNG = "position.json", "weights.safetensors", "rng.safetensors"
PREFIX, UNFINISHED = "step-", "tmp-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a run is: steps done, the loader's own state, and the sums that are not logged yet."""

    step: int
    loader: dict[str, Any]
    sums: list[float]


# Folders


def snapshots(out: Path) -> list[Path]:
    """List a run's checkpoints, the newest last."""
    return sorted(path for path in out.glob(f"{PREFIX}*") if (path / STATE / POSITION).exists())


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Give a folder to write to; it becomes the checkpoint when all of it is on the disk.

    What cannot be written is a TrainingError, and leaves nothing behind.
    """
    temporary = target.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{target}: cannot be written ({error}); the checkpoints before it are whole") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(out: Path, *, keep: int | None = None) -> None:
    """Remove what a killed run left unfinished, and all checkpoints but the last `keep`."""
    for path in [*out.glob(f"{UNFINISHED}*"), *(snapshots(out)[:-keep] if keep else [])]:
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# What only training needs


def save(folder: Path | None, model: nn.Module, optimizer: Optimizer, *, here: Place, position: Position) -> None:
    """Write optimizer, random numbers of every process and position; the first process has the `folder`."""
    for moment in MOMENTS:
        found = gathered(_moments(model, optimizer, moment), here=here)
        if folder is not None:
            save_file(found, folder / STATE / f"{moment}.safetensors")
        del found
    states = {f"cpu.{rank}": row for rank, row in enumerate(here.all_say(torch.get_rng_state()))}
    if here.device.type == "cuda":
        rows = here.all_say(torch.cuda.get_rng_state())
        states |= {f"cuda.{rank}": row for rank, row in enumerate(rows)}
    if folder is not None:
        save_file(states, folder / STATE / RNG)
        write_json(folder / STATE / POSITION, asdict(position))


def position(folder: Path) -> Position:
    """Read how far the run was."""
    told = read_json(folder / STATE / POSITION)
    try:
        return Position(step=int(told["step"]), loader=dict(told["loader"]), sums=list(told["sums"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE / POSITION}: damaged ({error!r})") from error


def restore(folder: Path, model: nn.Module, optimizer: Optimizer, *, here: Place) -> None:
    """Give optimizer and random numbers what they had; a process that was not there then has its own numbers."""
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    step = torch.tensor(float(position(folder).step))
    for moment in MOMENTS:
        for name, value in read(folder / STATE / f"{moment}.safetensors", parameters):
            held = optimizer.state[parameters[name]]
            held.setdefault("step", step.clone())
            held[moment] = like(value, parameters[name])
    with _opened(folder / STATE / RNG) as file:
        known = set(file.keys())
        if f"cpu.{here.rank}" in known:
            torch.set_rng_state(file.get_tensor(f"cpu.{here.rank}"))
        if here.device.type == "cuda" and f"cuda.{here.rank}" in known:
            torch.cuda.set_rng_state(file.get_tensor(f"cuda.{here.rank}"))


def load_weights(folder: Path, model: nn.Module) -> None:
    """Give the weights what they were, bit for bit; those that are not stored are as the model was built."""
    own, parameters = folder / STATE / WEIGHTS, dict(model.named_parameters())
    found = set()
    for path in [own] if own.exists() else weight_files(folder):
        for name, value in read(path, parameters):
            found.add(name)
            with torch.no_grad():
                parameters[name].copy_(value)
    trained = {name for name, value in parameters.items() if value.requires_grad}
    if missing := trained - found:
        raise CheckpointError(f"{folder}: {len(missing)} trained weights are missing, {min(missing)} for one")


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the trained weights beside a checkpoint that does not have them under their names."""
    save_file(dict(weights), folder / STATE / WEIGHTS)


def read(path: Path, wanted: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Read the tensors of a file that are wanted, one after the other."""
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            if name in wanted:
                yield name, file.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); remove this checkpoint to go on from another"
        ) from error


def _moments(model: nn.Module, optimizer: Optimizer, moment: str) -> dict[str, Tensor]:
    named = {name: optimizer.state.get(value, {}) for name, value in model.named_parameters()}
    return {name: state[moment] for name, state in named.items() if moment in state}
