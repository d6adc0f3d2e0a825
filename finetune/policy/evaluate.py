"""How well a policy does on recorded steps: what it would have done, beside what was done."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from finetune import recipe
from finetune.data.assemble import Batch
from finetune.data.loader import Loader, LoaderOptions, Part
from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint
from finetune.models.acting import Policy
from finetune.policy.policy import Dtype, load
from finetune.policy.scores import Scores, Source
from finetune.recipe import DataRecipe
from finetune.training.folders import RECIPE
from finetune.training.metrics import Judge, Steps
from schemas.errors import CheckpointError
from schemas.mixture.lock import TRAIN, Lock
from schemas.source import Array
from schemas.spaces import Space

Watch = Callable[[int], object]  # is told how many steps came to those judged before


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is evaluated: steps of a part of a lock (`limit` None: `val` whole, as many of `train` as it has).

    `shuffle` shows each step the image of another: what is left of the accuracy needs no eyes.
    """

    part: Part = "val"
    limit: int | None = None
    shuffle: bool = False
    batch: int = 8
    dtype: Dtype = "float32"
    device: str = "cpu"


def evaluate(model: str, lock: Path, asked: Asked, *, watch: Watch = lambda _: None) -> Scores:
    """Predict the action of each step, every token by the model itself, and put it beside the recorded one."""
    folder = checkpoint.local_folder(model, {})
    loader = _loader(folder, lock, asked)
    limit = loader.steps if asked.limit is None else min(asked.limit, loader.steps)
    policy = load(folder, dtype=asked.dtype, device=asked.device)
    judge = _judge(policy, loader)
    others = _of_others(folder, lock, asked, steps=loader.steps) if asked.shuffle else None
    found: list[Steps] = []
    for batch in islice(loader, -(-limit // asked.batch)):
        images = _images(batch) if others is None else islice(others, len(batch))
        inputs = policy.inputs(list(images), batch.instruction)
        found.append(judge(batch, policy.tokens(inputs, numbers=batch.action[0].size)))
        watch(len(batch))
    sources = [_source(i, loader.lock, judge) for i in range(len(judge.names))]
    return Scores(steps=Steps.joined(found, limit), sources=sources, dims=loader.lock.dims, tokenizer=judge.tokenizer)


def _judge(policy: Policy, loader: Loader) -> Judge:
    """Find the statistics of every source in the checkpoint; one that it does not have is an error."""
    known, dims = policy.statistics, len(loader.lock.dims)
    own = [known.named(name) for name in loader.sources]
    for name, norm in zip(loader.sources, own, strict=True):
        if len(norm.names) != dims:
            raise CheckpointError(f"{known.where}: actions of {name} have {len(norm.names)} numbers, here {dims}")
    norms = [loader.norm(name) for name in loader.sources]
    return Judge(loader.sources, norms, policy.model.config.action_tokenizer, own=own)


def _loader(folder: Path, lock: Path, asked: Asked, *, seed: int | None = None) -> Loader:
    """Open the data as the training did, but for what was random in it."""
    path = folder / RECIPE
    data = recipe.load(path.read_text(), where=str(path)).data if path.exists() else DataRecipe()
    trained = checkpoint.preprocessing(folder) or Preprocessing()
    reading = LoaderOptions(
        cameras=data.cameras, chunk=data.chunk, missing=data.missing, preprocessing=trained.acting()
    )
    return Loader(lock, reading, batch_size=asked.batch, part=asked.part, seed=seed, threads=data.threads)


def _of_others(folder: Path, lock: Path, asked: Asked, *, steps: int) -> Iterator[Array]:
    """Give images of other steps: those of `val` half of it further on, those of `train` as another seed draws them."""
    loader = _loader(folder, lock, asked)
    if asked.part == TRAIN:
        loader = _loader(folder, lock, asked, seed=loader.seed + 1)
    else:
        loader.draws = steps // 2
    for batch in chain(loader, _loader(folder, lock, asked)):
        yield from _images(batch).copy()


def _images(batch: Batch) -> Array:
    """Give what is seen in each step, [B, h, w, 3]."""
    (images,) = batch.images.values()
    return np.asarray(images)[:, -1]


def _source(i: int, lock: Lock, judge: Judge) -> Source:
    name, mean = judge.names[i], judge.norms[i].mean
    dims = Space.from_json(lock.sources[name].space).dims
    places = zip(lock.dims, lock.places(name), strict=True)
    units = {dim: dims[place].unit if place >= 0 else "" for dim, place in places}
    if mean is None:
        raise CheckpointError(f"statistics of {name} have no mean")
    own = (judge.own or judge.norms)[i]
    return Source(name=name, units=units, mean_tokens=judge.tokenizer.encode(own.normalize(mean)), mean=mean)
