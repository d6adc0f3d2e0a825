"""What happens to a stored image before a model's own transform: one object for the loader and for acting.

A checkpoint keeps it, so that a policy sees what it was trained on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from schemas import augment
from schemas.augment import Change, Recipe
from schemas.codec import decode
from schemas.errors import CheckpointError, OxeError
from schemas.planes import to_planes
from schemas.resize import Method, blocks, resize, resize_planes, to_levels
from schemas.source import Array, Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The size (height, width) and filter of an image, and how it is augmented in training; the default is OpenVLA's.

    `size` None leaves images as large as they are. `like_tensorflow` decodes JPEG as TensorFlow does.
    """

    size: tuple[int, int] | None = (224, 224)
    method: Method = "lanczos3"
    antialias: bool = True
    augment: Recipe | None = None
    like_tensorflow: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes and filters that there are not."""
        for side in self.size or ():
            blocks(side, side, method=self.method, antialias=self.antialias)

    def seen(self, data: Bytes) -> Array:
        """Decode and resize an encoded image, [h, w, 3] uint8: what a policy sees when it acts."""
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
        """Resize [H, W, 3] uint8."""
        if self.size is None or pixels.shape[:2] == self.size:
            return pixels
        return resize(pixels, self.size, method=self.method, antialias=self.antialias)

    def augmented(self, pixels: Array, change: Change | None) -> Array:
        """Resize and augment [H, W, 3] uint8."""
        if change is None:
            return self.resized(pixels)
        if self.size is None or pixels.shape[:2] == self.size:
            return augment.augment(pixels, change)
        planes = resize_planes(to_planes(pixels), self.size, method=self.method, antialias=self.antialias)
        to_levels(planes)
        return augment.changed(planes, change)

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
