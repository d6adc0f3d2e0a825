"""Batches: what a loader hands out, and how they are assembled from drawn steps."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from finetune.data.order import Order
from finetune.data.pictures import Decoder
from finetune.data.windows import Place, Reader
from schemas.errors import DatasetError
from schemas.source import Array

ATTEMPTS = 8  # other steps that are tried in place of one with a broken image


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B drawn steps with what lies around them: C actions from the step on, H observations up to it.

    Arrays are numpy's, or tensors in a torch loader.
    """

    end: int  # draws of all ranks after this batch
    draw: Any  # [B] int64: the k of the sampling law
    source: Any  # [B] int64: of the loader's `sources`
    episode: Any  # [B] int64: position in its dataset
    step: Any  # [B] int64: place in the stored episode
    action: Any  # [B, C, D] float32, normalized
    action_is_pad: Any  # [B, C] bool: behind the episode's end, where the last action is repeated
    action_valid: Any  # [B, D] bool: the dimensions that the source has; 0 elsewhere
    state: Any  # [B, H, S] float32, normalized; or None
    images: dict[str, Any]  # by camera: [B, H, h, w, 3] uint8 RGB
    image_is_missing: dict[str, Any]  # by camera: [B, H] bool; black there
    history_is_pad: Any  # [B, H] bool: before the episode's start, where the first step is repeated
    instruction: tuple[str, ...]  # "" where the step has none
    broken: tuple[str, ...]  # what could not be decoded, in whose place another step of the same stratum stands
    substituted: Any  # [B] bool: where one stands

    def __len__(self) -> int:
        """Count the drawn steps."""
        return len(self.instruction)

    @property
    def known(self) -> Array:
        """Say which numbers of the actions were recorded, [B, C, D] bool."""
        return np.asarray(~np.asarray(self.action_is_pad)[:, :, None] & np.asarray(self.action_valid)[:, None, :])

    def put(self, i: int, other: "Batch") -> None:
        """Overwrite sample i by the one that another batch holds, all but its draw and what is not an array."""
        for name in (field.name for field in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, dict):
                for camera, array in ours.items():
                    array[i] = theirs[camera][0]
            elif isinstance(ours, np.ndarray):
                ours[i] = theirs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The draws of one batch: strata and steps [B], and how many draws there are until its end."""

    end: int
    draw: Array
    stratum: Array
    step: Array

    def until(self, stop: int) -> Self:
        """Leave out draws from `stop` on."""
        kept = slice(0, max(0, int(np.searchsorted(self.draw, stop))))
        draws = {"draw": self.draw[kept], "stratum": self.stratum[kept], "step": self.step[kept]}
        return replace(self, end=min(self.end, stop), **draws)

    def one(self, i: int, step: int) -> Self:
        """Give one of the draws alone, with another step."""
        of = slice(i, i + 1)
        return replace(self, draw=self.draw[of], stratum=self.stratum[of], step=np.array([step]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What makes batches; threads may share it."""

    order: Order
    reader: Reader
    decoder: Decoder
    history: int
    chunk: int

    def batch(self, drawn: Drawn, attempt: int = 0) -> Batch:
        """Read the batch of some draws."""
        episode, number = self.order.steps(drawn.stratum, drawn.step)
        shown, (numbers, is_pad) = self.order.shown, self._around(episode, number)
        place = Place(shown.source[episode], shown.position[episode], shown.stored(numbers), self.history)
        windows = self.reader.read(place)
        pictures = self.decoder.decode(windows, drawn.draw)
        batch = Batch(
            end=drawn.end,
            draw=drawn.draw,
            source=place.source,
            episode=place.position,
            step=place.stored[:, self.history],
            action=windows.action,
            action_is_pad=is_pad[:, self.history :],
            action_valid=windows.valid,
            state=windows.state,
            images=pictures.images,
            image_is_missing=pictures.missing,
            history_is_pad=is_pad[:, : self.history],
            instruction=windows.texts,
            broken=tuple(filter(None, pictures.broken)),
            substituted=np.full(len(drawn.draw), attempt > 0),
        )
        return self._mended(batch, drawn, pictures.broken, attempt=attempt) if batch.broken else batch

    def _around(self, episode: Array, number: Array) -> tuple[Array, Array]:
        """Number the steps around each: [B, H + C], cut to the episode, and where they were cut."""
        bounds = self.order.shown.bounds
        wanted = number[:, None] + np.concatenate([np.arange(1 - self.history, 1), np.arange(self.chunk)])
        numbers = wanted.clip(bounds[episode][:, None], bounds[episode + 1][:, None] - 1)
        return numbers, numbers != wanted

    def _mended(self, batch: Batch, drawn: Drawn, broken: tuple[str, ...], *, attempt: int) -> Batch:
        """Put another step of the same stratum in the place of each with a broken image."""
        if attempt == ATTEMPTS:
            raise DatasetError(f"{batch.broken[0]}; so are the {ATTEMPTS} steps that were drawn before in its place")
        texts, said = list(batch.instruction), list(batch.broken)
        for i in (i for i, why in enumerate(broken) if why):
            size = self.order.sizes[drawn.stratum[i]]
            step = _other(self.decoder.seed, int(drawn.draw[i]), attempt) % size
            other = self.batch(drawn.one(i, step), attempt + 1)
            batch.put(i, other)
            texts[i] = other.instruction[0]
            said += other.broken
        return replace(batch, broken=tuple(said), instruction=tuple(texts))


def _other(seed: int, draw: int, attempt: int) -> int:
    content = f"{seed}\0other\0{draw}\0{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
