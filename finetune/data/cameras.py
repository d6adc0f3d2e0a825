"""Reads the images of a published dataset as tensors. Works in the main process and in workers."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from schemas.codec import decode
from schemas.errors import DatasetError, SourceError, UsageError, did_you_mean
from schemas.images import sniff
from schemas.source import Array
from schemas.store.arrow import IMAGES, Camera
from schemas.store.data_file import DataFile
from schemas.store.dataset import Dataset, open_dataset

Kind: TypeAlias = Literal["float32", "uint8"]
Missing: TypeAlias = Literal["error", "black"]
Chosen: TypeAlias = Mapping[str, tuple[int, Camera]]  # by item key: number in the index, and the camera


class Images:
    """Reads images of chosen colour cameras. May be pickled and forked, because each process opens its own files."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        names: Sequence[str] | None = None,
        keys: Iterable[str] = (),
        kind: Kind = "float32",
        missing: Missing = "error",
        transforms: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Choose cameras by `names`, each a role or the last part of a column's name (the leaf).

        If `names` is None, all cameras are chosen. Each gets its leaf as name, or the name that it has in `keys`.
        """
        for name, value, known in (("image_type", kind, get_args(Kind)), ("missing", missing, get_args(Missing))):
            if value not in known:
                raise UsageError(f"{name}: unknown value '{value}'{did_you_mean(value, known)}")
        self.chosen = _chosen(dataset, names, keys)
        self.kind, self.missing, self.transforms = kind, missing, transforms
        self._uri, self._digest = dataset.folder.absolute().uri, dataset.digest
        self._opened: Dataset | None = dataset
        self._process = os.getpid()
        self._sizes: dict[str, tuple[int, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the open files."""
        return {**self.__dict__, "_opened": None}

    def read(self, key: str, path: str, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Decode one camera's images in D rows of a file, [D, 3, H, W]; and return which of them are missing, [D]."""
        number, camera = self.chosen[key]
        file = self._dataset().file(path)
        decoded = [self._decoded(file, row, number=number, camera=camera) for row in rows]
        sizes = {pixels.shape[:2] for pixels in decoded if pixels is not None} or {self.size(key)}
        if len(sizes) > 1:
            listed = " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
            raise DatasetError(f"{file.place}: {camera.column}: different image sizes in one episode: {listed}")
        images = np.empty((len(decoded), 3, *sizes.pop()), self.kind)
        for out, pixels in zip(images, decoded, strict=True):
            planes = 0 if pixels is None else pixels.transpose(2, 0, 1)
            if self.kind == "uint8":
                out[...] = planes
            else:
                np.divide(planes, np.float32(255), out=out)
        return torch.from_numpy(images), torch.tensor([pixels is None for pixels in decoded])

    def size(self, key: str) -> tuple[int, int]:
        """Return the height and width of a camera's first image in the dataset."""
        number, camera = self.chosen[key]
        if key not in self._sizes:
            for entry in self._dataset().manifest["files"]:
                file = self._dataset().file(entry["path"])
                rows = np.flatnonzero(file.index.lengths[:, number])
                if len(rows) and (encoded := file.image(int(rows[0]), number)):
                    header = sniff(encoded)
                    self._sizes[key] = header.height, header.width
                    break
            else:
                raise DatasetError(f"{self._uri}: {camera.column} has no images; leave that camera out")
        return self._sizes[key]

    def _decoded(self, file: DataFile, row: int, *, number: int, camera: Camera) -> Array | None:
        """Decode one image, [H, W, 3] uint8 RGB. Returns None if it is missing and `missing` is "black"."""
        encoded = file.image(row, number)
        if encoded is None:
            if self.missing == "black":
                return None
            raise DatasetError(
                f"{file.place}: {camera.column} has no image in row {row}; missing='black' returns a black image"
            )
        try:
            pixels = decode(encoded)
        except SourceError as error:
            raise DatasetError(f"{file.place}: {camera.column}, row {row}: {error}") from error
        return pixels[..., ::-1] if camera.channels == "bgr" else pixels

    def _dataset(self) -> Dataset:
        """Return the dataset; opens it if this process has not opened it yet."""
        if self._opened is None or self._process != os.getpid():
            opened = open_dataset(self._uri)
            if opened.digest != self._digest:
                raise DatasetError(f"{self._uri}: the dataset was replaced after it was opened")
            self._opened, self._process = opened, os.getpid()
        return self._opened


def _chosen(dataset: Dataset, names: Sequence[str] | None, keys: Iterable[str]) -> Chosen:
    known = dataset.columns.colour_cameras()
    if names is not None:
        names = (names,) if isinstance(names, str) else names
        for name in names:
            if name not in known:
                raise UsageError(f"{dataset.uri}: no colour camera '{name}'{did_you_mean(name, known)}")
        return {IMAGES + name: known[name] for name in names}
    requested = [key.removeprefix(IMAGES) for key in keys if key.startswith(IMAGES)]
    named = {known[name][0]: name for name in requested if name in known}
    return {IMAGES + named.get(i, camera.leaf): (i, camera) for i, camera in sorted(known.values(), key=itemgetter(0))}
