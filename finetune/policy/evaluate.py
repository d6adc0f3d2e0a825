"""How well a policy does on recorded steps: what it would have done, beside what was done."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from finetune import recipe
from finetune.actions import ActionTokenizer
from finetune.data.assemble import Batch
from finetune.data.loader import Loader, Part, Reading
from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint
from finetune.models.decoding import NO_EPS, decode
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.processor import prompt
from finetune.policy.policy import policy
from finetune.policy.scores import Scores, Source, Steps
from finetune.recipe import DataRecipe
from finetune.training.batches import known_numbers
from finetune.training.folders import RECIPE
from schemas.errors import CheckpointError
from schemas.mixture.lock import TRAIN, Lock
from schemas.source import Array
from schemas.spaces import Space
from stats.norm import EPS, NormStats

CLOSE = 1e-6  # of the statistics of a checkpoint and a lock that are the same
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
    dtype: str = "float32"
    device: str = "cpu"


def evaluate(model: str, lock: Path, asked: Asked, *, watch: Watch = lambda _: None) -> Scores:
    """Predict the action of each step, every token by the model itself, and put it beside the recorded one."""
    folder = checkpoint.local_folder(model, {})
    loader = _loader(folder, lock, asked)
    limit = loader.steps if asked.limit is None else min(asked.limit, loader.steps)
    vla: Any = policy(str(folder), dtype=getattr(torch, asked.dtype))
    judge = OpenLoop.of(vla.to(asked.device), loader)
    others = _of_others(folder, lock, asked, steps=loader.steps) if asked.shuffle else None
    found: list[Steps] = []
    for batch in islice(loader, -(-limit // asked.batch)):
        found.append(judge(batch, _images(batch) if others is None else list(islice(others, len(batch)))))
        watch(len(batch))
    return Scores(
        steps=Steps.joined(found, limit), sources=judge.sources, dims=loader.lock.dims, tokenizer=judge.tokenizer
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """A policy, and for each source of a lock its own statistics and the lock's."""

    vla: Any
    own: Sequence[NormStats]
    theirs: Sequence[NormStats]
    sources: Sequence[Source]
    tokenizer: ActionTokenizer

    @classmethod
    def of(cls, vla: OpenVLAForActionPrediction, loader: Loader) -> Self:
        """Find the statistics of every source in the checkpoint; one that it does not have is an error."""
        known = vla.predictor.statistics
        tokenizer = ActionTokenizer(vla.config.action_vocab, vla.config.n_action_bins)
        theirs = [loader.norm(name) for name in loader.sources]
        own = [known.named(name) for name in loader.sources]
        dims = len(loader.lock.dims)
        for name, norm in zip(loader.sources, own, strict=True):
            if len(norm.names) != dims:
                raise CheckpointError(f"{known.where}: actions of {name} have {len(norm.names)} numbers, here {dims}")
        named, lock = zip(loader.sources, own, theirs, strict=True), loader.lock
        sources = [_source(name, lock, own=one, lock_norm=other, tokenizer=tokenizer) for name, one, other in named]
        return cls(vla=vla, own=own, theirs=theirs, sources=sources, tokenizer=tokenizer)

    def __call__(self, batch: Batch, images: Sequence[Array] | Array) -> Steps:
        """Predict for one batch, and compare."""
        if self.vla.processor is None:
            raise CheckpointError(f"{self.vla.config.name_or_path}: no tokenizer beside the weights")
        action = np.asarray(batch.action, np.float64)
        asked = self.vla.processor([prompt(text) for text in batch.instruction], list(images)).to(self.vla.device)
        ids = decode(self.vla, **asked, steps=action[0].size).ids.cpu().numpy().reshape(action.shape)
        did = self.tokenizer.decode(ids)
        predicted, recorded, truth = (np.empty_like(action) for _ in range(3))
        for place in np.unique(batch.source):
            at, own, theirs = batch.source == place, self.own[place], self.theirs[place]
            predicted[at] = own.unnormalize(did[at], eps=NO_EPS)
            recorded[at] = theirs.unnormalize(action[at], eps=EPS)
            truth[at] = action[at] if _are_same(own, theirs) else own.normalize(recorded[at])
        return Steps(
            source=np.array(batch.source),
            episode=np.array(batch.episode),
            step=np.array(batch.step),
            tokens=ids,
            truth=self.tokenizer.encode(truth),
            predicted=predicted,
            recorded=recorded,
            known=known_numbers(batch),
        )


def _loader(folder: Path, lock: Path, asked: Asked, *, seed: int | None = None) -> Loader:
    """Open the data as the training did, but for what was random in it."""
    path = folder / RECIPE
    data = recipe.load(path.read_text(), where=str(path)).data if path.exists() else DataRecipe()
    trained = checkpoint.preprocessing(folder) or Preprocessing()
    reading = Reading(cameras=data.cameras, chunk=data.chunk, missing=data.missing, preprocessing=trained.acting())
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


def _source(name: str, lock: Lock, *, own: NormStats, lock_norm: NormStats, tokenizer: ActionTokenizer) -> Source:
    dims = Space.from_json(lock.sources[name].space).dims
    places = zip(lock.dims, lock.places(name), strict=True)
    units = {dim: dims[place].unit if place >= 0 else "" for dim, place in places}
    mean = lock_norm.mean
    if mean is None:
        raise CheckpointError(f"statistics of {name} have no mean")
    return Source(name=name, units=units, mean_tokens=tokenizer.encode(own.normalize(mean)), mean=mean)


def _are_same(own: NormStats, theirs: NormStats) -> bool:
    pairs = ((own.q01, theirs.q01), (own.q99, theirs.q99), (own.mask, theirs.mask))
    return all(a is not None and b is not None and np.allclose(a, b, rtol=CLOSE, atol=0) for a, b in pairs)
