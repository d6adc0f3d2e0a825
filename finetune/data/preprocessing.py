"""The preprocessing of stored images, which is applied before a model's own transform.

The loader and the policy share it. A checkpoint contains its settings, so that a policy preprocesses images in the same
way as in training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from finetune.data import augment
from finetune.data.augment import Augmentation, Change
from finetune.data.resize import Method, blocks, resize, resize_columns, to_levels
from schemas.codec import decode
from schemas.errors import CheckpointError, OxeError, UsageError
from schemas.source import Array, Bytes

AREA = 0.9  # fraction of the image that OpenVLA crops to


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The size (height, width), filter and augmentation of images; the defaults are OpenVLA's.

    If `size` is None, images keep their size. If `like_tensorflow` is True, JPEG is decoded as TensorFlow does. If
    `crop` is not None, images are cropped to their middle, which is then enlarged to the full size; `crop` is the
    fraction of the area that is kept. This is for policies that were trained on random crops.
    """

    size: tuple[int, int] | None = (224, 224)
    method: Method = "lanczos3"
    antialias: bool = True
    augment: Augmentation | None = None
    like_tensorflow: bool = True
    crop: float | None = None

    def __post_init__(self) -> None:
        """Raise UsageError if the size, filter or crop is not valid."""
        for side in self.size or ():
            blocks(side, side, method=self.method, antialias=self.antialias)
        if self.crop is not None and (self.augment or not 0 < self.crop <= 1):
            raise UsageError(f"crop {self.crop}: must be above 0 and at most 1, and cannot be combined with augment")

    def acting(self, *, center_crop: bool | None = None) -> Self:
        """Return the preprocessing of a policy that was trained with this one.

        Random changes are removed. Random crops are replaced by a center crop of their mean area. If `center_crop` is
        not None, it decides whether images are cropped.
        """
        area = sum(self.augment.area) / 2 if self.augment else AREA
        cropped = bool(self.augment and area < 1) if center_crop is None else center_crop
        return replace(self, augment=None, crop=area if cropped else None)

    def seen(self, data: Bytes) -> Array:
        """Decode, resize and crop an encoded image, [h, w, 3] uint8."""
        return self.resized(self.decoded(data))

    def drawn(self, data: Bytes, *, seed: int, sample: int, camera: int = 0) -> Array:
        """Decode, resize and augment an encoded image in the same way as the loader does for this sample."""
        return self.augmented(self.decoded(data), self.change(seed, sample, camera=camera))

    def decoded(self, data: Bytes, out: Array | None = None) -> Array:
        """Decode an image to [H, W, 3] uint8 RGB. The pixels are written to `out` if it has the same shape."""
        return decode(data, like_tensorflow=self.like_tensorflow, out=out)

    def change(self, seed: int, sample: int, *, camera: int = 0) -> Change | None:
        """Draw the random changes of one image of a sample. Returns None if there is no augmentation."""
        return self.augment.draw(seed, sample, camera=camera) if self.augment else None

    def resized(self, pixels: Array) -> Array:
        """Resize an image [H, W, 3] uint8, and crop it if `crop` is set."""
        if self.size is not None and pixels.shape[:2] != self.size:
            pixels = resize(pixels, self.size, method=self.method, antialias=self.antialias)
        return pixels if self.crop is None else augment.center_crop(pixels, area=self.crop)

    def augmented(self, pixels: Array, change: Change | None) -> Array:
        """Resize an image [H, W, 3] uint8, and apply the random changes. If `change` is None, crop as in `resized`."""
        if change is None:
            return self.resized(pixels)
        if self.size is None or pixels.shape[:2] == self.size:
            return augment.augment(pixels, change)
        columns = resize_columns(pixels, self.size, method=self.method, antialias=self.antialias)
        to_levels(columns)
        return augment.changed(columns, change)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that a checkpoint contains."""
        return asdict(self)

    @classmethod
    def of(cls, values: Any, *, where: str = "preprocessing.json") -> Self:
        """Parse the result of `to_json`. Raises CheckpointError if it is not valid."""
        try:
            return cls(**{**values, "size": _pair(values["size"]), "augment": _augmentation(values["augment"])})
        except (AttributeError, LookupError, TypeError, ValueError, OxeError) as error:
            raise CheckpointError(f"{where}: not valid preprocessing ({error})") from error


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = map(int, size)
    return height, width


def _augmentation(values: Mapping[str, Any] | None) -> Augmentation | None:
    if values is None:
        return None
    kwargs: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Augmentation(**kwargs)
