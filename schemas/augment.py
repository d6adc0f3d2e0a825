"""OpenVLA's augmentation and center crop as TensorFlow computes them, in numpy.

What is drawn for a sample is a function of (seed, sample, camera) alone: no state, no order, no worker. The functions
of single changes work on planes [3, H, W] float32 in 0..1. Cropping is TensorFlow's bit for bit, the others up to 2e-6.
"""

from dataclasses import dataclass

import numpy as np

from schemas.errors import UsageError
from schemas.planes import F, scratch, to_image, to_planes, turn
from schemas.source import Array

WHEEL = ((3, 1), (2, -1), (4, -1))  # red is largest away from 3 sixths of a turn, green around 2, blue around 4
SMALLEST = F(np.finfo(F).tiny)

Range = tuple[float, float]
Box = tuple[float, float, float, float]  # top, left, bottom, right, as parts of the height and width


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one image, in this order."""

    box: Box
    brightness: float  # added
    contrast: float  # times the distance from the mean
    saturation: float  # times
    hue: float  # turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How much may happen to an image; the defaults are OpenVLA's."""

    area: Range = (0.9, 0.9)  # of the crop
    ratio: Range = (1.0, 1.0)  # its width to its height
    brightness: float = 0.2
    contrast: Range = (0.8, 1.2)
    saturation: Range = (0.8, 1.2)
    hue: float = 0.05
    diagonal: bool = True  # crop along the diagonal only, as OpenVLA's pipeline does: one number places both axes

    def __post_init__(self) -> None:
        """Refuse ranges that are upside down or make no sense."""
        ranges = {"area": (0, 1), "ratio": (0, np.inf), "contrast": (0, np.inf), "saturation": (0, np.inf)}
        for name, (least, most) in ranges.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most or (name in {"area", "ratio"} and not low):
                raise UsageError(f"{name}: no range of {least} to {most}: {low} to {high}")
        if not (self.brightness >= 0 and 0 <= self.hue <= 0.5):
            raise UsageError(f"brightness {self.brightness} and hue {self.hue}: at least 0, hue at most 0.5")

    def draw(self, seed: int, sample: int, *, camera: int = 0) -> Change:
        """Draw what happens to one image of a sample."""
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
    """Change [H, W, 3] uint8: crop, then brightness, contrast, saturation and hue, as dlimp's `augment_image` does."""
    return changed(turn(_checked_planes(image)), change)


def changed(turned: Array, change: Change) -> Array:
    """Do the same to planes of whole numbers 0..255, turned [3, W, H] float32, which are overwritten; [H, W, 3]."""
    turned *= F(1 / 255)
    planes = crop(turned, change.box, scratch("cropped", (3, turned.shape[2], turned.shape[1])))
    brighten(planes, change.brightness)
    spread(planes, change.contrast)
    recolour(planes, change.saturation, change.hue)
    return _to_bytes(planes)


def center_crop(image: Array, *, area: float = 0.9) -> Array:
    """Cut the middle out of [H, W, 3] uint8 and give it the size of the whole, as OpenVLA does when it is evaluated."""
    side = np.minimum(np.sqrt(F(area)), F(1))
    start = (F(1) - side) / F(2)
    turned = turn(_checked_planes(image))
    turned *= F(1 / 255)
    box = (float(start), float(start), float(start + side), float(start + side))
    planes = crop(turned, box, scratch("cropped", (3, turned.shape[2], turned.shape[1])))
    return _to_bytes(np.clip(planes, F(0), F(1), out=planes))


def _checked_planes(image: Array) -> Array:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(f"an image must be [H, W, 3] uint8, got {list(image.shape)} {image.dtype}")
    return to_planes(image)


def _to_bytes(planes: Array) -> Array:
    planes *= F(255.5)
    return to_image(planes)


def crop(turned: Array, box: Box, out: Array) -> Array:
    """Cut a box out of turned planes [C, W, H] and give it the size of `out` [C, h, w].

    Bilinear and not antialiased, as `tf.image.crop_and_resize` does.
    """
    top, left, bottom, right = box
    columns = scratch("columns", (len(out), out.shape[2], turned.shape[2]))
    _mixed(turned, _taps(left, right, size=turned.shape[1], wanted=out.shape[2]), columns)
    return _mixed(turn(columns), _taps(top, bottom, size=turned.shape[2], wanted=out.shape[1]), out)


def _mixed(planes: Array, taps: tuple[Array, Array, Array], out: Array) -> Array:
    """Mix each row of the result from two rows."""
    low, high, part = taps
    np.take(planes, low, axis=1, out=out, mode="clip")
    other = np.take(planes, high, axis=1, out=scratch("high", out.shape), mode="clip")
    other -= out
    other *= part[:, None]
    out += other
    return out


def _taps(start: float, end: float, *, size: int, wanted: int) -> tuple[Array, Array, Array]:
    """Say which two pixels each of `wanted` lies between, and how far along."""
    last = F(size - 1)
    step = (F(end) - F(start)) * last / F(wanted - 1) if wanted > 1 else F(0)
    first = F(start) * last if wanted > 1 else F(0.5) * (F(start) + F(end)) * last
    place = np.clip(first + np.arange(wanted, dtype=F) * step, F(0), last)
    low = np.floor(place)
    return low.astype(np.intp), np.ceil(place).astype(np.intp), place - low


def brighten(planes: Array, delta: float) -> None:
    """Add to every pixel, as `tf.image.adjust_brightness` does; then cut to 0..1."""
    planes += F(delta)
    np.clip(planes, F(0), F(1), out=planes)


def spread(planes: Array, factor: float) -> None:
    """Move every pixel away from its channel's mean, as `tf.image.adjust_contrast` does; then cut to 0..1."""
    mean = planes.reshape(len(planes), -1, copy=False).mean(axis=1)[:, None, None]
    planes *= F(factor)
    planes += mean * (F(1) - F(factor))
    np.clip(planes, F(0), F(1), out=planes)


def recolour(planes: Array, saturation: float, turns: float) -> None:
    """Multiply the saturation of HSV, at most to 1, and turn its hue.

    As `tf.image.adjust_saturation` and then `tf.image.adjust_hue` do; the largest channel of a pixel stays as large.
    """
    red, green, blue = planes
    most = np.maximum(red, green, out=scratch("most", red.shape))
    np.maximum(most, blue, out=most)
    chroma = np.minimum(red, green, out=scratch("chroma", red.shape))
    np.minimum(chroma, blue, out=chroma)
    np.subtract(most, chroma, out=chroma)
    scale = np.maximum(chroma, SMALLEST, out=scratch("scale", red.shape))
    np.divide(F(1), scale, out=scale)
    hue = _hue(planes, most, scale)
    gain = np.multiply(most, scale, out=scale)  # what would take the saturation to 1
    chroma *= np.minimum(gain, F(saturation), out=gain)
    least = np.subtract(most, chroma, out=most)
    part = scratch("part", red.shape)
    hue += F(turns * 6)
    np.floor(np.multiply(hue, F(1 / 6), out=part), out=part)
    part *= F(6)
    hue -= part
    for plane, (middle, sign) in zip(planes, WHEEL, strict=True):  # a channel's share is a trapezoid around the wheel
        np.abs(np.subtract(hue, F(middle), out=part), out=part)
        np.subtract(part, F(1), out=part) if sign > 0 else np.subtract(F(2), part, out=part)
        np.clip(part, F(0), F(1), out=part)
        part *= chroma
        np.add(part, least, out=plane)


def _hue(planes: Array, most: Array, scale: Array) -> Array:
    """Give the hue in sixths of a turn, from -1 to 5; `scale` is 1 / chroma. Where there is no chroma, any."""
    red, green, blue = planes
    hue: Array = np.subtract(red, green, out=scratch("hue", red.shape))
    hue *= scale
    hue += F(4)
    other = np.subtract(blue, red, out=scratch("part", red.shape))
    other *= scale
    other += F(2)
    _replace(hue, other, where=green == most)
    np.subtract(green, blue, out=other)
    other *= scale
    _replace(hue, other, where=red == most)
    return hue


def _replace(values: Array, others: Array, *, where: Array) -> None:
    """Copy bits, where it is so, without branching: which pixels of a photo these are, no processor guesses."""
    bits, chosen = values.view(np.int32), scratch("bits", values.shape).view(np.int32)
    np.negative(where.view(np.int8), out=chosen, dtype=np.int32)
    differing = np.bitwise_xor(others.view(np.int32), bits, out=others.view(np.int32))
    differing &= chosen
    bits ^= differing
