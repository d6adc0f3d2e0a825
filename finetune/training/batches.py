"""What the loader reads as what the model is trained on: prompt, action tokens and stop, with labels on the latter two.

The prompt and the image are made by the processor that predicts, so training and acting see the same. Samples are read
and tokenized while the step before is computed.
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
from finetune.models.decoding import with_prefix
from finetune.models.openvla import IGNORED
from finetune.models.processor import PrismaticProcessor
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A padded batch; the last T - 1 of the T tokens at `tail` are an action's, then comes the stop token."""

    input_ids: Tensor  # [B, L]
    attention_mask: Tensor  # [B, L]
    labels: Tensor  # [B, L]: IGNORED but at action tokens and stop
    pixel_values: Tensor  # [B, 6, 224, 224]
    tail: Tensor  # [B, T] places in L

    @property
    def targets(self) -> Tensor:
        """Give the labels of the tail, [B, T]."""
        return self.labels.gather(1, self.tail)

    @property
    def tokens(self) -> int:
        """Count what the loss is a mean over."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device) -> Self:
        """Move all of it."""
        return type(self)(**{name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__})

    def unlabelled(self) -> Self:
        """Give the same without labels: it can be computed and counts for nothing."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED))


MicroBatch: TypeAlias = tuple[Batch, Inputs]  # what a process computes at a time


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes inputs of the loader's batches for one model."""

    processor: PrismaticProcessor
    config: Any
    camera: str

    def __call__(self, batch: Batch) -> Inputs:
        """Collate; right-padded, labels only where an action is known and not a padding of its chunk."""
        images = list(np.asarray(batch.images[self.camera])[:, -1])
        asked = self.processor.inputs(images, list(batch.instruction))
        ids, mask = with_prefix(asked["input_ids"], asked["attention_mask"], prefix=self.config.action_prefix_id)
        answer, is_known = self._answer(batch)
        tail = mask.sum(1, keepdim=True) + torch.arange(answer.shape[1])
        self._check_length(int(tail.max()) + 1)
        pad = self.processor.tokenizer.pad_token_id
        ids = torch.nn.functional.pad(ids, (0, answer.shape[1]), value=pad).scatter(1, tail, answer)
        return Inputs(
            input_ids=ids,
            attention_mask=torch.nn.functional.pad(mask, (0, answer.shape[1])).scatter(1, tail, 1),
            labels=torch.full_like(ids, IGNORED).scatter(1, tail, answer.where(is_known, IGNORED)),
            pixel_values=asked["pixel_values"],
            tail=tail,
        )

    def _answer(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give action tokens and stop [B, chunk * D + 1], and which of them are to be learnt."""
        action = np.asarray(batch.action)
        stop = np.full((len(action), 1), self.config.text_config.eos_token_id)
        ids = np.concatenate([self.config.action_tokenizer.encode(action).reshape(len(action), -1), stop], axis=1)
        known = batch.known.reshape(len(action), -1)
        return torch.from_numpy(ids), torch.from_numpy(np.pad(known, ((0, 0), (0, 1)), constant_values=True))

    def _check_length(self, length: int) -> None:
        if length > self.config.llm_max_length:
            raise UsageError(f"an instruction makes {length} tokens, the model reads {self.config.llm_max_length}")


def feed(loader: TorchLoader, collate: Collator, *, parts: int) -> Iterator[list[MicroBatch]]:
    """Give `parts` batches for each step, without end; they begin where the loader is.

    Workers take a seed from torch's random numbers when they start: they shall not change those of the training.
    """
    batches = iter(loader)
    with ThreadPoolExecutor(1, thread_name_prefix="oxe-feed") as pool:
        with torch.random.fork_rng():
            ready = _step(batches, collate, parts)
        while True:
            coming = pool.submit(_step, batches, collate, parts)
            yield ready
            ready = coming.result()


def evaluated(loader: TorchLoader, collate: Collator, *, limit: int, spare: Inputs) -> Iterator[MicroBatch]:
    """Give the first batches of a loader, from its start each time.

    Of the last ones a process may have no sample: there it gets `spare`, since all have to compute together.
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
