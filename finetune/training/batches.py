"""Converts the loader's batches to inputs for training: prompts and images, and the actions to predict.

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
from finetune.models.heads import TRAIN_STEPS
from finetune.models.oft import OFTSettings
from finetune.models.openvla import IGNORED
from finetune.models.parallel_decoding import with_placeholders
from finetune.models.processor import PrismaticProcessor
from finetune.models.vit import PATCHES
from schemas.errors import UsageError
from schemas.source import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A padded batch. `tail` has the positions of the T - 1 action tokens of each sample, and of the stop token.

    With a continuous head, actions are numbers and not tokens, and there are no labels.
    """

    input_ids: Tensor  # [B, L]
    attention_mask: Tensor  # [B, L]
    pixel_values: Tensor  # [B, 6n, 224, 224]
    tail: Tensor  # [B, T] positions in L
    known: Tensor  # [B, K, A] bool: which numbers count in the loss
    labels: Tensor | None = None  # [B, L]: the token at recorded actions and at the stop token; IGNORED elsewhere
    actions: Tensor | None = None  # [B, K, A] normalized, for continuous heads
    proprio: Tensor | None = None  # [B, P] normalized
    noise: Tensor | None = None  # [B, K, A] for diffusion heads
    timesteps: Tensor | None = None  # [B] for diffusion heads

    @property
    def targets(self) -> Tensor:
        """The labels of the tail, [B, T]."""
        labels = torch.full_like(self.input_ids, IGNORED) if self.labels is None else self.labels
        return labels.gather(1, self.tail)

    @property
    def terms(self) -> int:
        """The number of tokens, or numbers, over which the loss is averaged."""
        return int(self.known.sum() if self.labels is None else (self.labels != IGNORED).sum())

    def to(self, device: torch.device) -> Self:
        """Move all tensors to a device."""
        tensors: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if v is not None})

    def uncounted(self) -> Self:
        """Return the batch with nothing that counts in the loss."""
        labels = None if self.labels is None else torch.full_like(self.labels, IGNORED)
        return replace(self, labels=labels, known=torch.zeros_like(self.known))


MicroBatch: TypeAlias = tuple[Batch, Inputs]  # the samples that a process computes at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Collator:
    """Converts the loader's batches to inputs of a model, with its processor and config.

    `oft` are the settings of OpenVLA-OFT, None for OpenVLA. With a diffusion head, the noise and the timestep of a
    sample depend only on `seed` and the number of its draw.
    """

    processor: PrismaticProcessor
    config: Any
    cameras: tuple[str, ...]
    oft: OFTSettings | None = None
    seed: int = 0

    def __call__(self, batch: Batch) -> Inputs:
        """Return inputs that are padded on the right. Padding of a chunk does not count in the loss."""
        prompts = self.processor.inputs(self._images(batch), list(batch.instruction))
        ids, mask = with_prefix(prompts["input_ids"], prompts["attention_mask"], prefix=self.config.action_prefix_id)
        action, stop, pad = np.asarray(batch.action), self.config.text_config.eos_token_id, self.config.pad_token_id
        ids, mask, tail = with_placeholders(ids, mask, size=action[0].size, stop=stop, pad=pad)
        inserted = prompts["pixel_values"].shape[1] // 6 * PATCHES
        check_length(self.config, int(tail.max()) + 1 + inserted, inserted=inserted)
        inputs = Inputs(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=prompts["pixel_values"],
            tail=tail,
            known=torch.from_numpy(batch.known),
        )
        inputs = self._with_tokens(inputs, action) if self._has_tokens else self._with_numbers(inputs, batch)
        if self.oft is not None and self.oft.proprio:
            inputs = replace(inputs, proprio=torch.from_numpy(np.asarray(batch.state)[:, -1].clip(-1, 1)))
        return inputs

    @property
    def _has_tokens(self) -> bool:
        return self.oft is None or self.oft.head == "discrete"

    def _images(self, batch: Batch) -> list[list[Array]]:
        """Return the images of each observation: the oldest step first, within a step in the order of the cameras."""
        seen = np.stack([np.asarray(batch.images[camera]) for camera in self.cameras], axis=2)  # [B, H, cameras, ...]
        return [list(observation.reshape(-1, *observation.shape[2:])) for observation in seen]

    def _with_tokens(self, inputs: Inputs, action: Array) -> Inputs:
        """Add labels. OpenVLA also gets the tokens as input, to predict each from those before it."""
        tokens = torch.from_numpy(self.config.action_tokenizer.encode(action).reshape(len(action), -1))
        stop = torch.full((len(action), 1), self.config.text_config.eos_token_id)
        answer = torch.cat([tokens, stop], dim=1)
        is_known = torch.nn.functional.pad(inputs.known.flatten(1), (0, 1), value=True)
        labels = torch.full_like(inputs.input_ids, IGNORED).scatter(1, inputs.tail, answer.where(is_known, IGNORED))
        ids = inputs.input_ids.scatter(1, inputs.tail, answer) if self.oft is None else inputs.input_ids
        return replace(inputs, input_ids=ids, labels=labels)

    def _with_numbers(self, inputs: Inputs, batch: Batch) -> Inputs:
        """Add actions, and for diffusion, noise and timesteps."""
        actions = torch.from_numpy(np.asarray(batch.action))
        if self.oft is None or self.oft.head != "diffusion":
            return replace(inputs, actions=actions)
        draws = [np.random.Generator(np.random.Philox(key=[self.seed, int(draw)])) for draw in np.asarray(batch.draw)]
        timesteps = torch.tensor([int(draw.integers(TRAIN_STEPS)) for draw in draws], dtype=torch.long)
        noise = np.array([draw.standard_normal(actions.shape[1:], np.float32) for draw in draws])
        noise = noise.reshape(actions.shape).astype(np.float32)
        return replace(inputs, actions=actions, noise=torch.from_numpy(noise), timesteps=timesteps)


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
            yield _part(batch, collate) if len(batch) else (batch, spare.uncounted())


def _step(batches: Iterator[Batch], collate: Collator, parts: int) -> list[MicroBatch]:
    return [_part(batch, collate) for batch in islice(batches, parts)]


def _part(batch: Batch, collate: Collator) -> MicroBatch:
    try:
        return batch, collate(batch)
    except UsageError as error:
        raise UsageError(f"{error} (one of episodes {list(map(int, batch.episode))})") from error
