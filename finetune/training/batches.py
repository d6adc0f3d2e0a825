"""Converts the loader's batches to inputs for training: prompt, action tokens and stop token, with labels.

Prompts and images are converted by the same processor as in prediction, so the model gets the same inputs in both. The
batches of a step are read and tokenized while the previous step is computed.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from finetune.data.assemble import Batch
from finetune.data.torch_loader import TorchLoader
from finetune.models.decoding import check_length, with_prefix
from finetune.models.openvla import IGNORED
from finetune.models.processor import PrismaticProcessor
from finetune.models.vit import PATCHES
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A padded batch. `tail` has the positions of the T - 1 action tokens of each sample, and of the stop token."""

    input_ids: Tensor  # [B, L]
    attention_mask: Tensor  # [B, L]
    labels: Tensor  # [B, L]: the token at recorded actions and at the stop token; IGNORED elsewhere
    pixel_values: Tensor  # [B, 6, 224, 224]
    tail: Tensor  # [B, T] positions in L

    @property
    def targets(self) -> Tensor:
        """The labels of the tail, [B, T]."""
        return self.labels.gather(1, self.tail)

    @property
    def tokens(self) -> int:
        """The number of tokens over which the loss is averaged."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device) -> Self:
        """Move all tensors to a device."""
        return type(self)(**{name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__})

    def unlabelled(self) -> Self:
        """Return the batch with all labels IGNORED, so that it does not count in the loss."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED))


MicroBatch: TypeAlias = tuple[Batch, Inputs]  # the samples that a process computes at once


@dataclass(frozen=True, slots=True)
class Collator:
    """Converts the loader's batches to inputs of a model, with its processor and config."""

    processor: PrismaticProcessor
    config: Any
    camera: str

    def __call__(self, batch: Batch) -> Inputs:
        """Return inputs that are padded on the right. Action tokens in the padding of a chunk are not labelled."""
        images = list(np.asarray(batch.images[self.camera])[:, -1])
        prompts = self.processor.inputs(images, list(batch.instruction))
        ids, mask = with_prefix(prompts["input_ids"], prompts["attention_mask"], prefix=self.config.action_prefix_id)
        answer, is_known = self._answer(batch)
        tail = mask.sum(1, keepdim=True) + torch.arange(answer.shape[1])
        check_length(self.config, int(tail.max()) + 1 + PATCHES, inserted=PATCHES)
        pad = self.processor.tokenizer.pad_token_id
        ids = torch.nn.functional.pad(ids, (0, answer.shape[1]), value=pad).scatter(1, tail, answer)
        return Inputs(
            input_ids=ids,
            attention_mask=torch.nn.functional.pad(mask, (0, answer.shape[1])).scatter(1, tail, 1),
            labels=torch.full_like(ids, IGNORED).scatter(1, tail, answer.where(is_known, IGNORED)),
            pixel_values=prompts["pixel_values"],
            tail=tail,
        )

    def _answer(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the action tokens and the stop token, [B, chunk * D + 1], and which of them are labelled."""
        action = np.asarray(batch.action)
        stop = np.full((len(action), 1), self.config.text_config.eos_token_id)
        ids = np.concatenate([self.config.action_tokenizer.encode(action).reshape(len(action), -1), stop], axis=1)
        known = batch.known.reshape(len(action), -1)
        return torch.from_numpy(ids), torch.from_numpy(np.pad(known, ((0, 0), (0, 1)), constant_values=True))


def feed(loader: TorchLoader, collate: Collator, *, parts: int) -> Iterator[list[MicroBatch]]:
    """Yield a list of `parts` batches for each step, without end, from the loader's position on.

    Starting worker processes changes torch's random state, because their seeds are drawn from it. The state is restored
    afterwards, so that training does not depend on the number of workers.
    """
    batches = iter(loader)
    with ThreadPoolExecutor(1, thread_name_prefix="oxe-feed") as pool:
        with torch.random.fork_rng():
            ready = _step(batches, collate, parts)
        while True:
            coming = pool.submit(_step, batches, collate, parts)
            yield ready
            ready = coming.result()


def evaluation_batches(loader: TorchLoader, collate: Collator, *, limit: int, spare: Inputs) -> Iterator[MicroBatch]:
    """Yield the first `limit` batches of a loader. Every call starts from the beginning.

    All processes must compute together. A process that has no samples in a batch therefore gets `spare` without labels.
    """
    loader.load_state_dict({**loader.state_dict(), "draws": 0})
    with torch.random.fork_rng():
        for batch in islice(loader, limit):
            yield _part(batch, collate) if len(batch) else (batch, spare.unlabelled())


def _step(batches: Iterator[Batch], collate: Collator, parts: int) -> list[MicroBatch]:
    return [_part(batch, collate) for batch in islice(batches, parts)]


def _part(batch: Batch, collate: Collator) -> MicroBatch:
    try:
        return batch, collate(batch)
    except UsageError as error:
        raise UsageError(f"{error} (one of episodes {list(map(int, batch.episode))})") from error
