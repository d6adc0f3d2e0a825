"""Drawn films of two cameras, whose pictures follow the state, and faults of cameras."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import simplejpeg

from schemas.source import Array
from tests.pipelines.checks.demos import Rng, Robot, draw
from tests.pipelines.toy import Columns, columns

SIZE, CAMERAS = 96, ("observation.image", "observation.wrist")
ARM = Robot(hz=10, absolute=False, controller=False, clock=False, lag=0, noise=2e-4, step=0)
Films: TypeAlias = dict[str, list[Array]]  # camera -> pictures


def texture(seed: int, size: int) -> Array:
    """Draw a picture of coloured squares, [size, size, 3] uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 220, (size // 12 + 1, size // 12 + 1, 3))
    return np.kron(coarse, np.ones((12, 12, 1)))[:size, :size].astype(np.uint8)


def film(state: Array, rng: Rng) -> Films:
    """Draw what a fixed camera and one at the wrist see."""
    room, table = texture(1, SIZE), texture(2, 3 * SIZE)
    objects = rng.integers(10, SIZE - 20, (3, 2))
    out: Films = {name: [] for name in CAMERAS}
    for pose in state:
        picture = room.copy()
        for k, (y, x) in enumerate(objects):
            picture[y : y + 10, x : x + 10] = (60 * k, 200, 90)
        y, x = np.clip((SIZE / 2 + 70 * pose[:2]).astype(int), 0, SIZE - 16)
        picture[y : y + 16, x : x + 16] = (230, 40, 40)
        top, left = np.clip((SIZE + 150 * pose[:2]).astype(int), 0, 2 * SIZE)
        wrist = table[top : top + SIZE, left : left + SIZE].copy()
        wrist[-20:, 30:66] = 20
        for name, image in zip(CAMERAS, (picture, wrist), strict=True):
            out[name].append(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
    return out


def encoded(picture: Array, quality: int = 90) -> bytes:
    """Encode a picture as JPEG."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality))


def filmed_episode(seed: int, *, fault: "Fault | None" = None, size: float = 1) -> Columns:
    """Make a toy episode with two cameras; a fault changes what they show."""
    rng = np.random.default_rng([seed, 5])
    demo = draw(ARM, rng, task=seed % 4)
    films = film(demo.state, rng)
    if fault:
        films = fault(films, demo.state, rng, size)
    made = columns(seed, steps=len(demo))
    numbers = {"observation.state": demo.state[:, :3], "action": demo.action[:, [0, 1, 2, 6]]}
    return made | numbers | {name: [encoded(picture) for picture in pictures] for name, pictures in films.items()}


# Faults; `size` is 0.5 (small), 1 or 2.

Fault: TypeAlias = Callable[[Films, Array, Rng, float], Films]


def _moving(state: Array, rng: Rng, count: int) -> int:
    speed = np.abs(np.diff(state[:, :2], axis=0)).sum(axis=1)
    total = np.convolve(speed, np.ones(count), "valid")
    return int(rng.choice(np.flatnonzero(total >= np.quantile(total, 0.6))))


def black(films: Films, state: Array, rng: Rng, size: float) -> Films:
    """Make 5 frames of one camera black, or fewer or more."""
    count, name = max(3, round(5 * size)), CAMERAS[int(rng.integers(2))]
    at = int(rng.integers(len(state) - count))
    pictures = list(films[name])
    for step in range(at, at + count):
        pictures[step] = rng.integers(0, 4, pictures[step].shape).astype(np.uint8)
    return {**films, name: pictures}


def freeze(films: Films, state: Array, rng: Rng, size: float) -> Films:
    """Repeat a frame of one camera for 0.6 s or more while the robot moves."""
    count, name = max(5, round(0.6 * ARM.hz * size)), CAMERAS[int(rng.integers(2))]
    at = _moving(state, rng, count)
    pictures = list(films[name])
    pictures[at : at + count] = [pictures[at]] * count
    return {**films, name: pictures}


def freeze_again(films: Films, state: Array, rng: Rng, size: float) -> Films:
    """Repeat a frame that a video encoder wrote again with slightly other pixels."""
    frozen = freeze(films, state, rng, size)
    name = next(name for name in CAMERAS if frozen[name] is not films[name])
    pictures = [np.roll(picture, 0) for picture in frozen[name]]
    for step, picture in enumerate(pictures):
        picture[step % SIZE, :4] //= 2
    return {**frozen, name: pictures}


def swap(films: Films, state: Array, rng: Rng, size: float) -> Films:
    """Exchange the cameras, from a step in the first half on."""
    at = int(rng.integers(0, len(state) // 2)) if size < 2 else 0
    first, second = (films[name] for name in CAMERAS)
    return dict(zip(CAMERAS, (first[:at] + second[at:], second[:at] + first[at:]), strict=True))


def shift(films: Films, state: Array, rng: Rng, size: float) -> Films:
    """Delay the images by 3 to 8 steps, or let them come early."""
    count = max(3, round(4 * size)) * int(rng.choice([-1, 1]))
    rows = np.clip(np.arange(len(state)) - count, 0, len(state) - 1)
    return {name: [pictures[row] for row in rows] for name, pictures in films.items()}


FILM_FAULTS: dict[str, tuple[str, Fault]] = {
    "black": ("black_camera", black),
    "freeze": ("frozen_camera", freeze),
    "freeze_again": ("frozen_camera", freeze_again),
    "swap": ("camera_swap", swap),
    "shift": ("camera_lag", shift),
}
