"""Resizes, crops and normalizes images for the vision towers, as `preprocessor_config.json` specifies."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from finetune.data.augment import center_crop
from finetune.data.preprocessing import Preprocessing
from finetune.data.resize import resize
from finetune.models.vit import IMAGE
from schemas.codec import decode
from schemas.errors import CheckpointError, SourceError, UsageError
from schemas.images import check_pixels
from schemas.limits import DECODED_PIXELS, check_limit
from schemas.source import Array

BICUBIC = 3
MEANS = ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
STDS = ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5))
QUALITY = 95  # JPEG quality in evaluations
STRATEGIES = ("resize-naive", "letterbox", "resize-crop")


@dataclass(frozen=True, slots=True)
class TowerTransform:
    """The image transform of one tower: resize, crop and normalize. `size` is the short side, or height and width."""

    size: int | tuple[int, int]
    interpolation: int
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def picture(self, image: Image.Image) -> Image.Image:
        """Resize and crop an image."""
        height, width = self._target(image)
        resized = image.resize((width, height), Image.Resampling(self.interpolation))
        top, left = round((height - self.crop[0]) / 2), round((width - self.crop[1]) / 2)
        return resized.crop((left, top, left + self.crop[1], top + self.crop[0]))

    def normalized(self, picture: Image.Image) -> Array:
        """Return a normalized image, [3, H, W] float32."""
        scaled = np.asarray(picture).astype(np.float32) / np.float32(255)
        mean, std = (np.array(figures, np.float32) for figures in (self.mean, self.std))
        return np.asarray(((scaled - mean) / std).transpose(2, 0, 1))

    def _target(self, image: Image.Image) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        short, long = sorted(image.size)
        other = int(self.size * long / short)
        return (self.size, other) if image.height <= image.width else (other, self.size)


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """The image transforms of all towers.

    `letterbox` is the color of the bars that make an image square before it is resized. If None, no bars are added.
    """

    views: tuple[TowerTransform, ...]
    strategy: str = STRATEGIES[0]
    letterbox: tuple[int, ...] | None = None

    def __call__(self, image: Any) -> Array:
        """Transform an image for all towers, [3 * towers, H, W] float32.

        An image is the bytes of an image file, a PIL image, or an array [H, W, 3] uint8.
        """
        picture = rgb(image)
        if self.letterbox is not None:
            picture = _squared(picture, self.letterbox)
        return np.concatenate([view.normalized(view.picture(picture)) for view in self.views])

    @classmethod
    def of(cls, content: Any, *, where: str = "preprocessor_config.json") -> Self:
        """Parse the content of a `preprocessor_config.json`. Raises CheckpointError if it is not valid.

        Keys that start with `tvf_` have precedence over `means` and `stds`, as in the original code.
        """
        try:
            return cls._of({**content})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{where}: not valid ({type(error).__name__}: {error})") from error

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Self:
        strategy = content.get("image_resize_strategy", STRATEGIES[0])
        if strategy not in STRATEGIES:
            raise ValueError(f"image_resize_strategy: expected one of {', '.join(STRATEGIES)}, got {strategy}")
        means, stds = content.get("means") or MEANS, content.get("stds") or STDS
        size: Any = [IMAGE, IMAGE] if strategy == "resize-naive" else IMAGE
        resizes = content.get("tvf_resize_params") or [{"size": size, "interpolation": BICUBIC}] * len(means)
        crops = content.get("tvf_crop_params") or [{"output_size": [IMAGE, IMAGE]}] * len(means)
        pairs = zip(means, stds, strict=True)
        norms = content.get("tvf_normalize_params") or [{"mean": mean, "std": std} for mean, std in pairs]
        views = tuple(_view(*params) for params in zip(resizes, crops, norms, strict=True))
        fill = content.get("tvf_letterbox_fill") or [int(mean * 255) for mean in means[-1]]
        boxed = content.get("tvf_do_letterbox", strategy == "letterbox")
        return cls(views, strategy, tuple(map(int, fill)) if boxed else None)

    def to_json(self) -> dict[str, Any]:
        """Return the content of a `preprocessor_config.json` that the original code can read."""
        sizes = [view.size if isinstance(view.size, int) else list(view.size) for view in self.views]
        return {
            "image_processor_type": "PrismaticImageProcessor",
            "image_resize_strategy": self.strategy,
            "input_sizes": [[3, *view.crop] for view in self.views],
            "interpolations": [Image.Resampling(view.interpolation).name.lower() for view in self.views],
            "means": [list(view.mean) for view in self.views],
            "processor_class": "PrismaticProcessor",
            "stds": [list(view.std) for view in self.views],
            "tvf_crop_params": [{"output_size": list(view.crop)} for view in self.views],
            "tvf_do_letterbox": self.letterbox is not None,
            "tvf_letterbox_fill": None if self.letterbox is None else list(self.letterbox),
            "tvf_normalize_params": [
                {"inplace": False, "mean": list(view.mean), "std": list(view.std)} for view in self.views
            ],
            "tvf_resize_params": [
                {"antialias": True, "interpolation": view.interpolation, "max_size": None, "size": size}
                for view, size in zip(self.views, sizes, strict=True)
            ],
            "use_fused_vision_backbone": True,
        }


def as_trained(image: Any, preprocessing: Preprocessing) -> Array:
    """Preprocess an image in the same way as in training, and return [h, w, 3] uint8."""
    if isinstance(image, bytes):
        return preprocessing.seen(image)
    return preprocessing.resized(np.asarray(rgb(image)))


def as_evaluated(image: Image.Image) -> Image.Image:
    """Preprocess an image as OpenVLA's evaluations do.

    An image that is not 224 x 224 is compressed as JPEG and resized to that size. Then every image is cropped to the
    middle 90% of its area, and resized to 224 x 224 again.
    """
    pixels = np.ascontiguousarray(rgb(image))
    if pixels.shape != (IMAGE, IMAGE, 3):
        pixels = resize(through_jpeg(pixels), (IMAGE, IMAGE))
    return Image.fromarray(center_crop(pixels))


def through_jpeg(pixels: Array) -> Array:
    """Compress an image as JPEG and decode it again. Both give the same bytes as in TensorFlow."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return decode(data.getvalue(), like_tensorflow=True)


def rgb(image: Any) -> Image.Image:
    """Convert an image to PIL's RGB. Raises UsageError if it is not an RGB image."""
    if isinstance(image, bytes):
        image = decoded(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UsageError(f"an image must be [H, W, 3] uint8, got {list(image.shape)} {image.dtype}")
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UsageError(f"an image must be PIL's or an array [H, W, 3] uint8, got {type(image).__name__}")
    if image.mode != "RGB" or 0 in image.size:
        size = f"{image.width} x {image.height}"
        raise UsageError(f"image of mode {image.mode}, {size}: expected RGB; convert it with image.convert('RGB')")
    return image


def decoded(data: bytes) -> Image.Image:
    """Decode an image with Pillow. Raises UsageError if it cannot be decoded."""
    try:
        check_pixels(data)
        with Image.open(io.BytesIO(data)) as image:
            _check_square(image)
            image.load()
            return image
    except SourceError as error:
        raise UsageError(str(error)) from error
    except UnidentifiedImageError as error:
        raise UsageError("not an image of a known format") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"the image cannot be decoded ({error})") from error


def _check_square(image: Image.Image) -> None:
    """Raise SourceError if an image would be too large once it is made square."""
    check_limit(max(image.size) ** 2, DECODED_PIXELS, "pixels", what="the image as a square")


def _view(scale: Mapping[str, Any], crop: Mapping[str, Any], norm: Mapping[str, Any]) -> TowerTransform:
    size = scale["size"] if isinstance(scale["size"], int) else _pair(scale["size"])
    mean, std = (tuple(float(value) for value in norm[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise ValueError("mean and std must have three numbers, and std cannot contain 0")
    return TowerTransform(
        size, int(Image.Resampling(scale.get("interpolation", BICUBIC))), _pair(crop["output_size"]), mean, std
    )


def _pair(values: Any) -> tuple[int, int]:
    height, width = map(int, values)
    return height, width


def _squared(image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
    """Make an image square by equal bars on both sides.

    If width and height differ by an odd number, the result is one pixel short of a square.
    """
    side = max(image.size)
    across, down = (side - image.width) // 2, (side - image.height) // 2
    canvas = Image.new("RGB", (image.width + 2 * across, image.height + 2 * down), fill)
    canvas.paste(image, (across, down))
    return canvas
