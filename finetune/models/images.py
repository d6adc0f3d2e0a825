"""Images as the vision towers see them: resized, cropped and normalized as `preprocessor_config.json` says."""

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
from schemas.errors import CheckpointError, UsageError
from schemas.source import Array

BICUBIC = 3
MEANS = ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
STDS = ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5))
QUALITY = 95  # of the JPEG that evaluations go through
STRATEGIES = ("resize-naive", "letterbox", "resize-crop")


@dataclass(frozen=True, slots=True)
class View:
    """One tower's image: its size (the short side, or height and width), its crop, and its normalization."""

    size: int | tuple[int, int]
    interpolation: int
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def picture(self, image: Image.Image) -> Image.Image:
        """Resize and crop."""
        height, width = self._target(image)
        resized = image.resize((width, height), Image.Resampling(self.interpolation))
        top, left = round((height - self.crop[0]) / 2), round((width - self.crop[1]) / 2)
        return resized.crop((left, top, left + self.crop[1], top + self.crop[0]))

    def normalized(self, picture: Image.Image) -> Array:
        """Give [3, H, W] float32."""
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
    """What the image becomes for each tower, and the grey of the bars that make it square, if it gets them."""

    views: tuple[View, ...]
    strategy: str = STRATEGIES[0]
    letterbox: tuple[int, ...] | None = None

    def __call__(self, image: Any) -> Array:
        """Give [3 for each tower, H, W] float32; the image is encoded, PIL's, or an array [H, W, 3] uint8."""
        picture = rgb(image)
        if self.letterbox is not None:
            picture = _squared(picture, self.letterbox)
        return np.concatenate([view.normalized(view.picture(picture)) for view in self.views])

    @classmethod
    def of(cls, told: Any, *, where: str = "preprocessor_config.json") -> Self:
        """Read what a checkpoint says; its `tvf_*` keys count more than `means` and `stds`, as in the original."""
        try:
            return cls._of({**told})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{where}: cannot be understood ({type(error).__name__}: {error})") from error

    @classmethod
    def _of(cls, told: Mapping[str, Any]) -> Self:
        strategy = told.get("image_resize_strategy", STRATEGIES[0])
        if strategy not in STRATEGIES:
            raise ValueError(f"image_resize_strategy is {strategy}, not one of {', '.join(STRATEGIES)}")
        means, stds = told.get("means") or MEANS, told.get("stds") or STDS
        size: Any = [IMAGE, IMAGE] if strategy == "resize-naive" else IMAGE
        resizes = told.get("tvf_resize_params") or [{"size": size, "interpolation": BICUBIC}] * len(means)
        crops = told.get("tvf_crop_params") or [{"output_size": [IMAGE, IMAGE]}] * len(means)
        pairs = zip(means, stds, strict=True)
        norms = told.get("tvf_normalize_params") or [{"mean": mean, "std": std} for mean, std in pairs]
        views = tuple(_view(*params) for params in zip(resizes, crops, norms, strict=True))
        fill = told.get("tvf_letterbox_fill") or [int(mean * 255) for mean in means[-1]]
        boxed = told.get("tvf_do_letterbox", strategy == "letterbox")
        return cls(views, strategy, tuple(map(int, fill)) if boxed else None)

    def to_json(self) -> dict[str, Any]:
        """Give `preprocessor_config.json` as the original code reads it."""
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
    """Give what a policy was trained to see, [h, w, 3] uint8, of an encoded image or of pixels."""
    if isinstance(image, bytes):
        return preprocessing.seen(image)
    return preprocessing.resized(np.asarray(rgb(image)))


def as_evaluated(image: Image.Image) -> Image.Image:
    """Give what OpenVLA's evaluations show: scaled to 224 x 224 by way of JPEG if it is not, then its middle 90%."""
    pixels = np.ascontiguousarray(rgb(image))
    if pixels.shape != (IMAGE, IMAGE, 3):
        pixels = resize(through_jpeg(pixels), (IMAGE, IMAGE))
    return Image.fromarray(center_crop(pixels))


def through_jpeg(pixels: Array) -> Array:
    """Encode and decode as TensorFlow does: what Pillow writes is the same, what it reads is not."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return decode(data.getvalue(), like_tensorflow=True)


def rgb(image: Any) -> Image.Image:
    """Take an RGB image; one of another kind is refused, for only the caller knows what its channels mean."""
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
        raise UsageError(f"an image of mode {image.mode}, {size}: the model sees RGB; convert it: image.convert('RGB')")
    return image


def decoded(data: bytes) -> Image.Image:
    """Decode an image as Pillow does; one that it cannot decode is a UsageError."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image
    except UnidentifiedImageError as error:
        raise UsageError("no image of a known format") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"an image that cannot be decoded ({error})") from error


def _view(scale: Mapping[str, Any], crop: Mapping[str, Any], norm: Mapping[str, Any]) -> View:
    size = scale["size"] if isinstance(scale["size"], int) else _pair(scale["size"])
    mean, std = (tuple(float(value) for value in norm[word]) for word in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise ValueError("a mean and a std have three numbers, and no std is 0")
    return View(size, int(Image.Resampling(scale.get("interpolation", BICUBIC))), _pair(crop["output_size"]), mean, std)


def _pair(values: Any) -> tuple[int, int]:
    height, width = map(int, values)
    return height, width


def _squared(image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
    """Add bars on both sides; where the sides differ by an odd number, one pixel is missing to a square."""
    side = max(image.size)
    across, down = (side - image.width) // 2, (side - image.height) // 2
    canvas = Image.new("RGB", (image.width + 2 * across, image.height + 2 * down), fill)
    canvas.paste(image, (across, down))
    return canvas
