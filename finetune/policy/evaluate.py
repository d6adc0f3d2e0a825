"""Evaluates a policy: predicts actions for recorded steps, and compares them with the recorded ones (`oxe eval`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from finetune import recipe
from finetune.actions import check_physical
from finetune.data.assemble import Batch
from finetune.data.loader import Loader, LoaderOptions, Part
from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint
from finetune.models.acting import Policy, Sampling
from finetune.models.lora import Say, silent
from finetune.models.oft import OFTSettings
from finetune.policy.policy import Dtype, load
from finetune.policy.scores import ScoredSource, Scores
from finetune.recipe import DataRecipe
from finetune.training.folders import RECIPE
from finetune.training.metrics import Judge, JudgedSteps
from schemas.errors import CheckpointError
from schemas.mixture.lock import TRAIN, Lock
from schemas.source import Array
from schemas.spaces import Space

Watch = Callable[[int], object]  # called after each batch with its number of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """The steps to evaluate, and how the policy is loaded.

    If `limit` is None, as many steps are evaluated as the part has. With `shuffle`, each step gets the image of another
    step. The accuracy that remains shows how much the policy can predict without looking at the image.
    """

    part: Part = "val"
    limit: int | None = None
    shuffle: bool = False
    batch: int = 8
    dtype: Dtype = "float32"
    device: str = "cpu"


def evaluate(
    model: str, lock: Path, options: EvaluationOptions, *, watch: Watch = lambda _: None, say: Say = silent
) -> Scores:
    """Predict the actions of recorded steps, and compare them with the recorded actions.

    Each token is predicted from the predicted tokens before it, not from the recorded ones. Tokens that are not actions
    are counted. `say` gets a note if adapters do not record their base.
    """
    folder = checkpoint.local_folder(model, {})
    policy = load(folder, dtype=options.dtype, device=options.device, say=say)
    open_loader = partial(_loader, folder, lock, options, oft=policy.model.oft)
    loader = open_loader()
    limit = loader.steps if options.limit is None else min(options.limit, loader.steps)
    judge, oft = _judge(policy, loader), policy.model.oft
    others = _other_images(open_loader, options.part, steps=loader.steps) if options.shuffle else None
    judged: list[JudgedSteps] = []
    for batch in islice(loader, -(-limit // options.batch)):
        images = _images(batch) if others is None else islice(others, len(batch))
        inputs = policy.inputs([list(observation) for observation in images], batch.instruction)
        if oft is None:
            predicted = policy.tokens(inputs, numbers=batch.action[0].size)
        else:
            predicted = policy.chunks(inputs, proprio=_proprio(policy, batch, loader), sampling=Sampling(seed=0))
        steps = judge(batch, predicted)
        check_physical(steps.predicted, judge.norms[0], where=policy.statistics.where)
        judged.append(steps)
        watch(len(batch))
    is_continuous = oft is not None and oft.head != "discrete"
    sources = [_source(i, loader.lock, judge, is_continuous=is_continuous) for i in range(len(judge.names))]
    steps = JudgedSteps.joined(judged, limit)
    return Scores(steps=steps, sources=sources, dims=loader.lock.dims, tokenizer=judge.tokenizer)


def _judge(policy: Policy, loader: Loader) -> Judge:
    """Return the judge of a policy. Raises UsageError if the checkpoint has no statistics for a source."""
    known, dims = policy.statistics, len(loader.lock.dims)
    own = [replace(known.named(name), constant=loader.lock.constant) for name in loader.sources]
    for name, norm in zip(loader.sources, own, strict=True):
        if len(norm.names) != dims:
            raise CheckpointError(f"{known.where}: actions of {name}: expected {dims} numbers, got {len(norm.names)}")
    norms = [loader.norm(name) for name in loader.sources]
    return Judge(loader.sources, norms, policy.model.config.action_tokenizer, own=own)


def _loader(
    folder: Path, lock: Path, options: EvaluationOptions, *, oft: OFTSettings | None, seed: int | None = None
) -> Loader:
    """Open the data with the same options as in training, but without random augmentation."""
    path = folder / RECIPE
    data = recipe.load(path.read_text(), where=str(path)).data if path.exists() else DataRecipe()
    trained = checkpoint.preprocessing(folder) or Preprocessing()
    reads = LoaderOptions(
        cameras=(oft.cameras if oft else ()) or data.cameras,
        history=oft.history if oft else 1,
        chunk=oft.chunk if oft else data.chunk,
        state=oft is not None and bool(oft.proprio),
        missing=data.missing,
        paraphrases=False,
        preprocessing=trained.acting(),
    )
    return Loader(lock, reads, batch_size=options.batch, part=options.part, seed=seed, threads=data.threads)


def _other_images(open_loader: Callable[..., Loader], part: Part, *, steps: int) -> Iterator[Array]:
    """Yield images of other steps.

    For `val`, these are the steps half the length of the part later. For `train`, they are drawn with another seed.
    """
    loader = open_loader()
    if part == TRAIN:
        loader = open_loader(seed=loader.seed + 1)
    else:
        loader.draws = steps // 2
    for batch in chain(loader, open_loader()):
        yield from _images(batch).copy()


def _images(batch: Batch) -> Array:
    """Return the images of each step, [B, n, h, w, 3]: the oldest first, within a step in the order of the cameras."""
    images = np.stack([np.asarray(images) for images in batch.images.values()], axis=2)
    return images.reshape(len(images), -1, *images.shape[3:])


def _proprio(policy: Policy, batch: Batch, loader: Loader) -> Array | None:
    """Return the proprios [B, P] of a batch, normalized with the statistics of the policy; None without them."""
    if batch.state is None:
        return None
    state, source = np.asarray(batch.state)[:, -1], np.asarray(batch.source)
    out = np.empty(state.shape, np.float32)
    for i in np.unique(source):
        name, at = loader.sources[i], source == i
        recorded = loader.state_norm(name).unnormalize(state[at].astype(np.float64))
        out[at] = policy.statistics.proprio(name).normalize_proprio(recorded)
    return out


def _source(i: int, lock: Lock, judge: Judge, *, is_continuous: bool) -> ScoredSource:
    name, mean = judge.names[i], judge.norms[i].mean
    dims = Space.from_json(lock.sources[name].space).dims
    places = zip(lock.dims, lock.places(name), strict=True)
    units = {dim: dims[place].unit if place >= 0 else "" for dim, place in places}
    if mean is None:
        raise CheckpointError(f"statistics of {name} have no mean")
    own = (judge.own or judge.norms)[i]
    normalized, tokenizer = own.normalize(mean), judge.tokenizer
    tokens = tokenizer.encode(normalized)
    if not is_continuous:
        normalized = tokenizer.decode(tokens)
    return ScoredSource(name=name, units=units, mean_tokens=tokens, mean_normalized=normalized, mean=mean)
