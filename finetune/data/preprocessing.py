"""What happens to a stored image before a model's own transform: one object for the loader and for acting.

A checkpoint keeps it, so that a policy sees what it was trained on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from finetune.data import augment
from finetune.data.augment import Change, Recipe
from finetune.data.resize import Method, blocks, resize, resize_columns, to_levels
from schemas.codec import decode
from schemas.errors import CheckpointError, OxeError, UsageError
from schemas.source import Array, Bytes

AREA = 0.9  # of OpenVLA's crops


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The size (height, width) and filter of an image, and how it is augmented in training; the default is OpenVLA's.

    `size` None leaves images as large as they are. `like_tensorflow` decodes JPEG as TensorFlow does. `crop` is the
    part of an image's area, in its middle, that is enlarged to the whole: what was trained on crops acts on it.
    """

    size: tuple[int, int] | None = (224, 224)
    method: Method = "lanczos3"
    antialias: bool = True
    augment: Recipe | None = None
    like_tensorflow: bool = True
    crop: float | None = None

    def __post_init__(self) -> None:
        """Refuse sizes and filters that there are not."""
        for side in self.size or ():
            blocks(side, side, method=self.method, antialias=self.antialias)
        if self.crop is not None and (self.augment or not 0 < self.crop <= 1):
            raise UsageError(f"crop {self.crop}: a part of the area, for images that are not augmented")

    def acting(self, *, center_crop: bool | None = None) -> Self:
        """Give what a policy sees that was trained with this: nothing random, but the middle if there were crops.

        `center_crop` says whether to crop, whatever the training did.
        """
        area = sum(self.augment.area) / 2 if self.augment else AREA
        cropped = bool(self.augment and area < 1) if center_crop is None else center_crop
        return replace(self, augment=None, crop=area if cropped else None)

    def seen(self, data: Bytes) -> Array:
        """Decode, resize and crop an encoded image, [h, w, 3] uint8."""
        return self.resized(self.decoded(data))

    def drawn(self, data: Bytes, *, seed: int, sample: int, camera: int = 0) -> Array:
        """Do the same, and augment it as this sample of the training is."""
        return self.augmented(self.decoded(data), self.change(seed, sample, camera=camera))

    def decoded(self, data: Bytes, out: Array | None = None) -> Array:
        """Decode an image, [H, W, 3] uint8 RGB, into `out` where it fits."""
        return decode(data, like_tensorflow=self.like_tensorflow, out=out)

    def change(self, seed: int, sample: int, *, camera: int = 0) -> Change | None:
        """Draw what happens to one image of a sample; nothing, if nothing is to."""
        return self.augment.draw(seed, sample, camera=camera) if self.augment else None

    def resized(self, pixels: Array) -> Array:
        """Resize and crop [H, W, 3] uint8."""
        if self.size is not None and pixels.shape[:2] != self.size:
            pixels = resize(pixels, self.size, method=self.method, antialias=self.antialias)
        return pixels if self.crop is None else augment.center_crop(pixels, area=self.crop)

    def augmented(self, pixels: Array, change: Change | None) -> Array:
        """Resize and augment [H, W, 3] uint8."""
        if change is None:
            return self.resized(pixels)
        if self.size is None or pixels.shape[:2] == self.size:
            return augment.augment(pixels, change)
        columns = resize_columns(pixels, self.size, method=self.method, antialias=self.antialias)
        to_levels(columns)
        return augment.changed(columns, change)

    def to_json(self) -> dict[str, Any]:
        """Give the form in which a checkpoint keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, told: Any, *, where: str = "preprocessing.json") -> Self:
        """Read `to_json` back; what is not of its form is a CheckpointError."""
        try:
            return cls(**{**told, "size": _pair(told["size"]), "augment": _recipe(told["augment"])})
        except (AttributeError, LookupError, TypeError, ValueError, OxeError) as error:
            raise CheckpointError(f"{where}: cannot be understood ({error})") from error


def _pair(told: Any) -> tuple[int, int] | None:
    if told is None:
        return None
    height, width = map(int, told)
    return height, width


def _recipe(told: Mapping[str, Any] | None) -> Recipe | None:
    if told is None:
        return None
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return Recipe(**values)
