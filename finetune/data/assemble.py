"""Drawn steps become a batch."""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from finetune.data.batch import Batch
from finetune.data.order import Order
from finetune.data.pictures import Decoder
from finetune.data.windows import Place, Reader
from schemas.errors import DatasetError
from schemas.source import Array

ATTEMPTS = 8  # other steps that are tried in place of one with a broken image


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
