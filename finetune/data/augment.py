"""OpenVLA's image augmentation and center crop in numpy, with the same results as TensorFlow.

The changes to an image depend only on the seed, the sample and the camera. They do not depend on the order of samples
or on the worker. Each change works on planes [3, H, W] float32 in 0..1. Crops equal TensorFlow's bit for bit. The other
changes differ from TensorFlow's by at most 2e-6.
"""

from dataclasses import dataclass

import numpy as np

from finetune.data.planes import F, from_planes, padded, scratch, to_matrix, turn
from schemas.errors import UsageError
from schemas.source import Array

SMALLEST = F(np.finfo(F).tiny)

Range = tuple[float, float]
Box = tuple[float, float, float, float]  # top, left, bottom, right, as fractions of the height and width


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The changes of one image, in the order in which they are applied."""

    box: Box
    brightness: float  # added to every value
    contrast: float  # factor of the distance from the mean
    saturation: float  # factor of the HSV saturation
    hue: float  # rotation of the hue in turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The ranges from which the changes of an image are drawn. The defaults are those of OpenVLA."""

    area: Range = (0.9, 0.9)  # the crop's area as a fraction of the image's
    ratio: Range = (1.0, 1.0)  # width / height of the crop
    brightness: float = 0.2
    contrast: Range = (0.8, 1.2)
    saturation: Range = (0.8, 1.2)
    hue: float = 0.05
    diagonal: bool = True  # one random number places the crop on both axes, as in OpenVLA's pipeline

    def __post_init__(self) -> None:
        """Raise UsageError if a range is reversed or outside its limits."""
        ranges = {"area": (0, 1), "ratio": (0, np.inf), "contrast": (0, np.inf), "saturation": (0, np.inf)}
        for name, (least, most) in ranges.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most or (name in {"area", "ratio"} and not low):
                raise UsageError(f"{name}: expected a range within {least} to {most}, got {low} to {high}")
        if not (self.brightness >= 0 and 0 <= self.hue <= 0.5):
            raise UsageError(f"brightness {self.brightness}, hue {self.hue}: both must be at least 0, hue at most 0.5")

    def draw(self, seed: int, sample: int, *, camera: int = 0) -> Change:
        """Draw the changes for one camera's image of a sample."""
        if min(seed, sample, camera) < 0 or max(seed, sample, camera) >= 1 << 64:
            raise UsageError(f"seed, sample and camera must be in 0 .. 2**64 - 1, got {seed}, {sample}, {camera}")
        counter, key = np.array([0, 0, 0, camera], np.uint64), np.array([seed, sample], np.uint64)
        bits = np.random.Philox(counter=counter, key=key).random_raw(8)
        drawn = (bits >> np.uint64(40)).astype(F) * F(2**-24)  # [0, 1)
        area, ratio, down, across, brightness, contrast, saturation, hue = drawn
        ratio = np.exp(_between(np.log(F(self.ratio[0])), np.log(F(self.ratio[1])), ratio))
        area = _between(*self.area, area)
        height, width = np.minimum(np.sqrt([area / ratio, area * ratio], dtype=F), F(1))
        top, left = down * (F(1) - height), (down if self.diagonal else across) * (F(1) - width)
        return Change(
            box=(float(top), float(left), float(top + height), float(left + width)),
            brightness=float(_between(-self.brightness, self.brightness, brightness)),
            contrast=float(_between(*self.contrast, contrast)),
            saturation=float(_between(*self.saturation, saturation)),
            hue=float(_between(-self.hue, self.hue, hue)),
        )


def _between(low: float, high: float, part: Array) -> Array:
    return F(low) + part * (F(high) - F(low))


def augment(image: Array, change: Change) -> Array:
    """Crop [H, W, 3] uint8, then change brightness, contrast, saturation and hue, as dlimp's `augment_image` does."""
    return changed(_columns(image), change)


def changed(columns: Array, change: Change) -> Array:
    """Augment columns [W, 3, H] float32 with whole values 0..255, and return [H, W, 3]. Overwrites `columns`."""
    planes = _cropped(columns, change.box)
    brighten(planes, change.brightness)
    spread(planes, change.contrast)
    recolour(planes, change.saturation, change.hue)
    return _to_bytes(planes)


def center_crop(image: Array, *, area: float = 0.9) -> Array:
    """Crop the middle of [H, W, 3] uint8 and resize it to the full size, as OpenVLA does in evaluation."""
    side = np.minimum(np.sqrt(F(area)), F(1))
    start = (F(1) - side) / F(2)
    planes = _cropped(_columns(image), (float(start), float(start), float(start + side), float(start + side)))
    return _to_bytes(np.clip(planes, F(0), F(1), out=planes))


def _columns(image: Array) -> Array:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(f"an image must be [H, W, 3] uint8, got {list(image.shape)} {image.dtype}")
    height, width, channels = image.shape
    return turn(to_matrix(image)).reshape(width, channels, height)


def _cropped(columns: Array, box: Box) -> Array:
    """Return the crop as planes 0..1, resized to the size of the image."""
    columns *= F(1 / 255)
    width, channels, height = columns.shape
    return crop(columns, box, scratch("cropped", (channels, height, width)))


def _to_bytes(planes: Array) -> Array:
    planes *= F(255.5)
    return from_planes(planes)


def crop(columns: Array, box: Box, out: Array) -> Array:
    """Crop columns [W, C, H] to a box and resize it to the planes `out` [C, h, w].

    Interpolates bilinearly without antialiasing, as in `tf.image.crop_and_resize`.
    """
    top, left, bottom, right = box
    (width, channels, height), (_, high, wide) = columns.shape, out.shape
    across = _taps(left, right, size=width, wanted=wide)
    chosen = _mixed(columns.reshape(width, -1), across, padded("columns", (wide, channels * height)))
    return _mixed(turn(chosen).reshape(channels, height, wide), _taps(top, bottom, size=height, wanted=high), out)


def _mixed(rows: Array, taps: tuple[Array, Array, Array], out: Array) -> Array:
    """Compute each of the n rows of `out`, [..., n, m], by linear interpolation between two rows of the input."""
    low, high, part = taps
    np.take(rows, low, axis=-2, out=out, mode="clip")
    other = np.take(rows, high, axis=-2, out=scratch("high", out.shape), mode="clip")
    other -= out
    other *= part[:, None]
    out += other
    return out


def _taps(start: float, end: float, *, size: int, wanted: int) -> tuple[Array, Array, Array]:
    """Return two input pixels for each of the `wanted` output pixels, and its position between them as a fraction."""
    last = F(size - 1)
    step = (F(end) - F(start)) * last / F(wanted - 1) if wanted > 1 else F(0)
    first = F(start) * last if wanted > 1 else F(0.5) * (F(start) + F(end)) * last
    position = np.clip(first + np.arange(wanted, dtype=F) * step, F(0), last)
    low = np.floor(position)
    return low.astype(np.intp), np.ceil(position).astype(np.intp), position - low


def brighten(planes: Array, delta: float) -> None:
    """Add `delta` to every pixel, as `tf.image.adjust_brightness` does; then clip to 0..1."""
    planes += F(delta)
    np.clip(planes, F(0), F(1), out=planes)


def spread(planes: Array, factor: float) -> None:
    """Scale each pixel's distance from its channel's mean, as `tf.image.adjust_contrast` does; then clip to 0..1."""
    mean = planes.reshape(len(planes), -1, copy=False).mean(axis=1)[:, None, None]
    planes *= F(factor)
    planes += mean * (F(1) - F(factor))
    np.clip(planes, F(0), F(1), out=planes)


def recolour(planes: Array, saturation: float, turns: float) -> None:
    """Multiply the HSV saturation by `saturation`, limited to 1, and rotate the hue by `turns`.

    The result equals that of `tf.image.adjust_saturation` followed by `tf.image.adjust_hue`. The largest channel of a
    pixel keeps its value. As a function of the hue, each channel has the shape of a trapezoid, and a rotation moves
    the channel along it. The channel rises if the next channel (of red, green, blue, red) is the larger of the other
    two, and falls if the previous channel is.
    """
    thirds = round(turns * 3)
    if thirds:  # a rotation by a third of a turn only exchanges the channels
        planes[...] = np.roll(planes, thirds, axis=0)
    red, green, blue = planes
    most = np.maximum(red, green, out=scratch("most", red.shape))
    least = np.minimum(red, green, out=scratch("least", red.shape))
    middle = np.minimum(most, blue, out=scratch("middle", red.shape))
    np.maximum(least, middle, out=middle)
    np.maximum(most, blue, out=most)
    np.minimum(least, blue, out=least)
    chroma = np.subtract(most, least, out=scratch("chroma", red.shape))
    moved = scratch("moved", planes.shape)
    for channel, (one, other) in enumerate(((green, blue), (blue, red), (red, green))):
        np.subtract(one, other, out=moved[channel])
    _signed(np.multiply(chroma, F(6 * turns - 2 * thirds), out=least), moved)
    moved += middle
    moved -= planes
    np.subtract(most, planes, out=planes)  # from here on, each channel's distance below the largest
    planes += moved
    np.maximum(planes, F(0), out=planes)
    np.minimum(planes, chroma, out=planes)
    planes *= _gain(most, chroma, saturation)
    np.subtract(most, planes, out=planes)


def _signed(values: Array, signs: Array) -> None:
    """Multiply `values` by the signs of `signs`, and store the result in `signs`. Three times as fast as `copysign`."""
    bits = signs.view(np.int32)
    bits &= np.int32(-(2**31))
    bits ^= values.view(np.int32)


def _gain(most: Array, chroma: Array, saturation: float) -> Array:
    """Return the factor by which to multiply the chroma, limited so that no channel becomes negative."""
    if saturation <= 1:
        return np.asarray(saturation, F)
    gain = np.maximum(chroma, SMALLEST, out=scratch("gain", most.shape))
    np.divide(most, gain, out=gain)
    return np.minimum(gain, F(saturation), out=gain)
