"""Drawn steps become a batch: numbers from records, images from byte ranges."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from finetune import buffers
from finetune.batch import Batch
from finetune.order import Order
from finetune.sources import File, OpenFiles, Source
from schemas.errors import DatasetError, MixtureError, SourceError, UsageError
from schemas.images import sniff
from schemas.source import Array

if TYPE_CHECKING:
    from finetune.data import Reading

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
        kept = self.draw < stop
        return replace(
            self, end=min(self.end, stop), draw=self.draw[kept], stratum=self.stratum[kept], step=self.step[kept]
        )

    def one(self, i: int, step: int) -> Self:
        """Give one of the draws alone, with another step."""
        of = slice(i, i + 1)
        return replace(self, draw=self.draw[of], stratum=self.stratum[of], step=np.array([step]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Records around drawn steps: [B, H + C], observations before actions."""

    files: list[File]  # [B]
    rows: Array  # [B, H + C] in the data file
    records: list[tuple[Array, Array]]  # by source: which of the B, and their records [b, H + C]


class Assembly:
    """What makes batches; threads may share it."""

    def __init__(self, sources: Sequence[Source], order: Order, *, reading: "Reading", method: str, seed: int) -> None:
        """Check that what is read fits together; sources with states of different dimensions do not."""
        self.sources, self._order, self._reading = list(sources), order, reading
        self._method, self._seed = method, seed
        self._files = OpenFiles(self.sources)
        sizes = {source.name: len(source.dataset.columns.state or ()) for source in sources}
        if reading.state and (len(set(sizes.values())) > 1 or 0 in sizes.values()):
            told = ", ".join(f"{size} in {name}" for name, size in sizes.items())
            raise MixtureError(f"state: the sources do not have one of the same dimensions: {told}")

    def batch(self, drawn: Drawn, attempt: int = 0) -> Batch:
        """Read a batch."""
        reading = self._reading
        episode, number = self._order.steps(drawn.stratum, drawn.step)
        shown = self._order.shown
        numbers, is_pad = self._around(episode, number)
        stored = shown.stored(numbers)
        source, position = shown.source[episode], shown.position[episode]
        batch = Batch(
            end=drawn.end,
            draw=drawn.draw,
            source=source,
            episode=position,
            step=stored[:, reading.history],
            action_is_pad=is_pad[:, reading.history :],
            history_is_pad=is_pad[:, : reading.history],
            substituted=np.full(len(drawn.draw), attempt > 0),
            **self._read(drawn, source, position, stored=stored),
        )
        return self._mended(batch, drawn, attempt) if any(batch.broken) else replace(batch, broken=())

    def _around(self, episode: Array, number: Array) -> tuple[Array, Array]:
        """Number the steps around each: [B, H + C], cut to the episode, and where they were cut."""
        reading, bounds = self._reading, self._order.shown.bounds
        offsets = np.concatenate([np.arange(1 - reading.history, 1), np.arange(reading.chunk)])
        wanted = number[:, None] + offsets
        numbers = wanted.clip(bounds[episode][:, None], bounds[episode + 1][:, None] - 1)
        return numbers, numbers != wanted

    def _read(self, drawn: Drawn, source: Array, position: Array, *, stored: Array) -> dict[str, Any]:
        reading, count = self._reading, len(source)
        dims, states = len(self.sources[0].places), len(self.sources[0].dataset.columns.state or ())
        action = np.empty((count, reading.chunk, dims), np.float32)
        valid = np.empty((count, dims), bool)
        state = np.empty((count, reading.history, states), np.float32) if reading.state else None
        texts = [""] * count
        files: list[Any] = [None] * count
        rows = np.empty_like(stored)
        images = np.empty((count, reading.history, len(reading.cameras), 2), np.int64)
        for s in np.unique(source).tolist():
            of, own = np.flatnonzero(source == s), self.sources[s]
            records = self._records(s, of, position[of], stored=stored, files=files, rows=rows)
            if records["masked"].any():
                raise MixtureError(f"{own.name}: the view does not show a step that the lock has: lock it again")
            action[of] = own.action(records["action"][:, reading.history :], self._method)
            valid[of] = own.places >= 0
            if state is not None and own.state_norm is not None:
                state[of] = own.state_norm.normalize(records["state"][:, : reading.history], self._method)
            for i, text in zip(of.tolist(), records["text"][:, reading.history].tolist(), strict=True):
                texts[i] = files[i].records.texts[text] if text >= 0 else ""
            images[of] = _ranges(records["image"][:, : reading.history], own)
        if not np.isfinite(action).all():
            self._refuse(action, files, rows)
        pictures = self._images(drawn, source, files, rows=rows, ranges=images)
        return {"action": action, "action_valid": valid, "state": state, "instruction": tuple(texts), **pictures}

    def _records(
        self, source: int, of: Array, position: Array, *, stored: Array, files: list[Any], rows: Array
    ) -> Array:
        """Read the records of some of the samples, which are of one source: [b, H + C]."""
        own = self.sources[source]
        _, numbers, firsts = own.where
        parts, starts, start = [], [], 0
        rows[of] = stored[of] + firsts[position][:, None]
        low, high = rows[of].min(axis=1).tolist(), rows[of].max(axis=1).tolist()
        for i, number, first, last in zip(of.tolist(), numbers[position].tolist(), low, high, strict=True):
            files[i] = self._files.get(source, number)
            parts.append(files[i].records.raw(first, last - first + 1))
            starts.append(start - first)
            start += last - first + 1
        table = np.frombuffer(b"".join(parts), own.records.dtype)
        return np.asarray(table[rows[of] + np.array(starts)[:, None]])

    def _refuse(self, action: Array, files: Sequence[File], rows: Array) -> None:
        i, step = np.argwhere(~np.isfinite(action).all(axis=2))[0].tolist()
        raise DatasetError(
            f"{files[i].place}: the action of row {rows[i, self._reading.history + step]} is not finite; leave its "
            "episode out by a filter in the mixture"
        )

    def _images(
        self, drawn: Drawn, source: Array, files: Sequence[File], *, rows: Array, ranges: Array
    ) -> dict[str, Any]:
        """Decode the images of all cameras."""
        reading = self._reading
        images: dict[str, Array] = {}
        missing: dict[str, Array] = {}
        broken = [""] * len(files)
        for c, name in enumerate(reading.cameras):
            missing[name] = ranges[:, :, c, 1] == 0
            if reading.missing == "error" and missing[name].any():
                self._refuse_missing(name, missing[name], files, rows)
            size = reading.preprocessing.size or self._size(files, ranges[:, :, c])
            images[name] = buffers.pixels((len(files), reading.history, *size, 3))
            for i, spans in enumerate(ranges[:, :, c].tolist()):
                camera = self.sources[source[i]].cameras[c]
                is_bgr = camera is not None and camera[1].channels == "bgr"
                change = reading.preprocessing.change(self._seed, int(drawn.draw[i]), camera=c)
                for h, (start, length) in enumerate(spans):
                    try:
                        self._decode(files[i], start, length, change=change, is_bgr=is_bgr, out=images[name][i, h])
                    except SourceError as error:
                        broken[i] = f"{files[i].place}: {name}, row {rows[i, h]}: {error}"
                        if reading.corrupt == "error":
                            raise DatasetError(
                                f"{broken[i]}; corrupt='substitute' draws other steps in place of such ones"
                            ) from error
        return {"images": images, "image_is_missing": missing, "broken": tuple(broken)}

    def _decode(self, file: File, start: int, length: int, *, change: Any, is_bgr: bool, out: Array) -> None:
        if not length:
            out[...] = 0
            return
        preprocessing = self._reading.preprocessing
        data = file.images.read(start, length)
        pixels = preprocessing.decoded(data, out if preprocessing.size is None else None)
        if is_bgr:
            pixels = pixels[..., ::-1].copy()
        pixels = preprocessing.augmented(pixels, change)
        if pixels.shape != out.shape:
            raise UsageError(
                f"{file.place}: images of {pixels.shape[0]} x {pixels.shape[1]} and {out.shape[0]} x {out.shape[1]} in "
                "one batch: give the preprocessing a size"
            )
        if not np.may_share_memory(pixels, out):
            out[...] = pixels

    def _size(self, files: Sequence[File], ranges: Array) -> tuple[int, int]:
        """Tell the size of the first image that is there."""
        for file, (start, length) in zip(files, ranges[:, 0].tolist(), strict=True):
            if length:
                header = sniff(file.images.read(start, length))
                return header.height, header.width
        raise UsageError("no image is there in a whole batch: give the preprocessing a size")

    def _refuse_missing(self, name: str, missing: Array, files: Sequence[File], rows: Array) -> None:
        i, h = np.argwhere(missing)[0].tolist()
        raise DatasetError(
            f"{files[i].place}: camera '{name}' has no image in row {rows[i, h]}; missing='black' shows black there"
        )

    def _mended(self, batch: Batch, drawn: Drawn, attempt: int) -> Batch:
        """Put another step of the same stratum in the place of each with a broken image."""
        broken, texts = list(filter(None, batch.broken)), list(batch.instruction)
        for i in (i for i, said in enumerate(batch.broken) if said):
            if attempt == ATTEMPTS:
                raise DatasetError(f"{batch.broken[i]}; so are {ATTEMPTS} other steps that were drawn in its place")
            size = self._order.sizes[drawn.stratum[i]]
            step = _other(self._seed, int(drawn.draw[i]), attempt) % size
            other = self.batch(drawn.one(i, step), attempt + 1)
            batch.put(i, other)
            texts[i] = other.instruction[0]
            broken += other.broken
        return replace(batch, broken=tuple(broken), instruction=tuple(texts))


def _ranges(images: Array, source: Source) -> Array:
    """Give offset and length of the cameras that are asked for: [b, H, cameras, 2]; 0 where a source lacks one."""
    out = np.zeros((*images.shape[:2], len(source.cameras), 2), np.int64)
    for c, camera in enumerate(source.cameras):
        if camera is not None:
            out[:, :, c, 0], out[:, :, c, 1] = images["offset"][:, :, camera[0]], images["length"][:, :, camera[0]]
    return out


def _other(seed: int, draw: int, attempt: int) -> int:
    content = f"{seed}\0other\0{draw}\0{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
