"""Assembles the batches that a loader returns from drawn steps."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from finetune.data.order import Order
from finetune.data.pictures import Decoder
from finetune.data.windows import WindowIndex, WindowReader
from schemas.errors import DatasetError
from schemas.mixture.paraphrases import paraphrased
from schemas.source import Array

ATTEMPTS = 8  # how many other steps to try in place of a step with a damaged image


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B drawn steps, each with H observations and C actions.

    The last of the H observations and the first of the C actions are those of the drawn step. A `Loader` returns numpy
    arrays, a `TorchLoader` returns tensors.
    """

    end: int  # how many draws all ranks have made, including this batch
    draw: Any  # [B] int64: index of the draw in the sampling law
    source: Any  # [B] int64: index into the loader's `sources`
    episode: Any  # [B] int64: position of the episode in its dataset
    step: Any  # [B] int64: index of the step in the stored episode
    action: Any  # [B, C, D] float32, normalized
    action_is_pad: Any  # [B, C] bool: True after the end of the episode, where the last action is repeated
    action_valid: Any  # [B, D] bool: True for dimensions that the source has; actions are 0 in the others
    state: Any  # [B, H, S] float32, normalized; or None
    images: dict[str, Any]  # by camera: [B, H, h, w, 3] uint8 RGB
    image_is_missing: dict[str, Any]  # by camera: [B, H] bool; missing images are black
    history_is_pad: Any  # [B, H] bool: True before the start of the episode, where the first step is repeated
    instruction: tuple[str, ...]  # [B] recorded, or a paraphrase that was drawn; "" for a step without instruction
    broken: tuple[str, ...]  # messages about damaged images; their steps were replaced by others of the same stratum
    substituted: Any  # [B] bool: True for a step that replaces one with a damaged image

    def __len__(self) -> int:
        """Return the number of drawn steps."""
        return len(self.instruction)

    @property
    def known(self) -> Array:
        """Which numbers of `action` were recorded, [B, C, D] bool. False for padding and missing dimensions."""
        return np.asarray(~np.asarray(self.action_is_pad)[:, :, None] & np.asarray(self.action_valid)[:, None, :])

    def put(self, i: int, other: "Batch") -> None:
        """Overwrite the arrays of sample i with those of sample 0 of `other`."""
        for name in (field.name for field in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, dict):
                for camera, array in ours.items():
                    array[i] = theirs[camera][0]
            elif isinstance(ours, np.ndarray):
                ours[i] = theirs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The draws of one batch: the stratum and step of each [B], and how many draws were made up to the batch's end."""

    end: int
    draw: Array
    stratum: Array
    step: Array

    def until(self, stop: int) -> Self:
        """Return the draws before `stop`."""
        kept = slice(0, max(0, int(np.searchsorted(self.draw, stop))))
        draws = {"draw": self.draw[kept], "stratum": self.stratum[kept], "step": self.step[kept]}
        return replace(self, end=min(self.end, stop), **draws)

    def one(self, i: int, step: int) -> Self:
        """Return draw `i` alone, with its step replaced by `step`."""
        only = slice(i, i + 1)
        return replace(self, draw=self.draw[only], stratum=self.stratum[only], step=np.array([step]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """Reads the steps of a batch and decodes their images. Several threads may use it at once."""

    order: Order
    reader: WindowReader
    decoder: Decoder
    history: int
    chunk: int
    paraphrases: Mapping[str, tuple[str, ...]]  # by instruction; empty if recorded instructions are returned

    def batch(self, drawn: Drawn, attempt: int = 0) -> Batch:
        """Read the batch of the draws `drawn`. `attempt` is 0, or the number of the attempt to replace a step."""
        episode, number = self.order.steps(drawn.stratum, drawn.step)
        shown, (numbers, is_pad) = self.order.shown, self._around(episode, number)
        index = WindowIndex(shown.source[episode], shown.position[episode], shown.stored(numbers), self.history)
        windows = self.reader.read(index)
        pictures = self.decoder.decode(windows, drawn.draw)
        batch = Batch(
            end=drawn.end,
            draw=drawn.draw,
            source=index.source,
            episode=index.position,
            step=index.stored[:, self.history],
            action=windows.action,
            action_is_pad=is_pad[:, self.history :],
            action_valid=windows.valid,
            state=windows.state,
            images=pictures.images,
            image_is_missing=pictures.missing,
            history_is_pad=is_pad[:, : self.history],
            instruction=self._instructions(windows.texts, drawn.draw),
            broken=tuple(filter(None, pictures.broken)),
            substituted=np.full(len(drawn.draw), attempt > 0),
        )
        return self._replace_broken(batch, drawn, pictures.broken, attempt=attempt) if batch.broken else batch

    def _instructions(self, texts: tuple[str, ...], draws: Array) -> tuple[str, ...]:
        if not self.paraphrases:
            return texts
        return paraphrased(texts, self.paraphrases, seed=self.decoder.seed, draws=draws)

    def _around(self, episode: Array, number: Array) -> tuple[Array, Array]:
        """Return the numbers of the steps in each window, [B, H + C], and which of them were clipped to the episode."""
        bounds = self.order.shown.bounds
        wanted = number[:, None] + np.concatenate([np.arange(1 - self.history, 1), np.arange(self.chunk)])
        numbers = wanted.clip(bounds[episode][:, None], bounds[episode + 1][:, None] - 1)
        return numbers, numbers != wanted

    def _replace_broken(self, batch: Batch, drawn: Drawn, broken: tuple[str, ...], *, attempt: int) -> Batch:
        """Replace each step that has a damaged image by another step of the same stratum."""
        if attempt == ATTEMPTS:
            raise DatasetError(f"{batch.broken[0]}; the {ATTEMPTS} steps tried before in its place are damaged too")
        texts, messages = list(batch.instruction), list(batch.broken)
        for i in (i for i, why in enumerate(broken) if why):
            size = self.order.sizes[drawn.stratum[i]]
            step = _other(self.decoder.seed, int(drawn.draw[i]), attempt) % size
            other = self.batch(drawn.one(i, step), attempt + 1)
            batch.put(i, other)
            texts[i] = other.instruction[0]
            messages += other.broken
        return replace(batch, broken=tuple(messages), instruction=tuple(texts))


def _other(seed: int, draw: int, attempt: int) -> int:
    content = f"{seed}\0other\0{draw}\0{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
