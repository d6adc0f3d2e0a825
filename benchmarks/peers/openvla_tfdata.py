"""OpenVLA's data pipeline from RLDS to a batch in tf.data, reimplemented for the benchmark step by step.

It is cheaper than the original, because it lacks the relabelling of goals, the checks for empty image strings, the
lookup table for unlabelled episodes, and the conversion of samples through PIL and torch. As in the original, images
stay encoded until after the shuffle.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from peers.openvla_images import augmented, resized

Bounds = Mapping[str, list[float]]  # q01, q99, min, max, mask


def frames(
    folder: Path, bounds: Mapping[str, Bounds], *, augment: bool, batch: int, shuffle: int, parallel: int
) -> tf.data.Dataset:
    """Read the RLDS in a folder repeatedly, as batches of frames; with `shuffle` 0 once and in order."""
    dataset = _trajectories(folder, once=not shuffle)
    dataset = dataset.map(lambda steps: _standardized(steps, bounds), num_parallel_calls=parallel)
    dataset = dataset.map(_chunked, num_parallel_calls=parallel)
    flat = tf.data.Dataset.from_tensor_slices
    if not shuffle:
        dataset = dataset.flat_map(flat)
    else:
        dataset = dataset.interleave(flat, cycle_length=parallel, num_parallel_calls=parallel).shuffle(shuffle)
    dataset = dataset.map(lambda frame: _pictured(frame, augment=augment), num_parallel_calls=parallel)
    options = tf.data.Options()
    options.autotune.ram_budget = 1 << 30  # OpenVLA's value
    options.deterministic = not shuffle
    return dataset.batch(batch).with_options(options)


def _trajectories(folder: Path, *, once: bool) -> tf.data.Dataset:
    """Return numbered episodes with undecoded images."""
    dataset = tfds.builder_from_directory(str(folder)).as_dataset(
        split="train",
        decoders={"steps": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, skip_prefetch=True, interleave_cycle_length=1),
    )
    numbered = dataset.enumerate()
    return (numbered if once else numbered.repeat()).map(
        lambda number, episode: {**episode["steps"], "episode": number}
    )


def _standardized(steps: dict[str, Any], bounds: Mapping[str, Bounds]) -> dict[str, Any]:
    """Drop the first step, compute achieved deltas, rename and normalize, as OpenVLA does for BridgeData."""
    number, steps = steps["episode"], {key: value for key, value in steps.items() if key != "episode"}
    steps = tf.nest.map_structure(lambda x: x[1:], steps)
    state, gripper = steps["observation"]["state"], _binarized(steps["action"][:, -1])
    moved = state[1:, :6] - state[:-1, :6]
    steps = tf.nest.map_structure(lambda x: x[:-1], steps)
    action = tf.concat([moved, gripper[:-1, None]], axis=1)
    length = tf.shape(action)[0]
    proprio = tf.concat([steps["observation"]["state"][:, :6], steps["observation"]["state"][:, -1:]], axis=1)
    return {
        "observation": {
            "image_primary": steps["observation"]["image_0"],
            "proprio": _normalized(tf.cast(proprio, tf.float32), bounds["state"]),
            "timestep": tf.range(length),
        },
        "task": {"language_instruction": steps["language_instruction"]},
        "action": _normalized(tf.cast(action, tf.float32), bounds["action"]),
        "dataset_name": tf.repeat("bench_l", length),
        "episode": tf.repeat(number, length),
    }


def _binarized(gripper: Any) -> Any:
    """Binarize the gripper; values in between take the next binary value."""
    opened, closed = gripper > 0.95, gripper < 0.05
    between = tf.logical_not(tf.logical_or(opened, closed))
    certain = tf.cast(opened, tf.float32)

    def step(carry: Any, i: Any) -> Any:
        return tf.cond(between[i], lambda: tf.cast(carry, tf.float32), lambda: certain[i])

    return tf.scan(step, tf.range(tf.shape(gripper)[0]), tf.cast(gripper[-1], tf.float32), reverse=True)


def _normalized(x: Any, bounds: Bounds) -> Any:
    """Map the quantiles to -1 and 1 where the mask is true, and clip; constant dimensions become 0."""
    low, high = tf.constant(bounds["q01"], tf.float32), tf.constant(bounds["q99"], tf.float32)
    scaled = tf.clip_by_value(2 * (x - low) / (high - low + 1e-8) - 1, -1, 1)
    constant = tf.constant(bounds["min"]) == tf.constant(bounds["max"])
    return tf.where(constant, 0.0, tf.where(tf.constant(bounds["mask"], tf.bool), scaled, x))


def _chunked(trajectory: dict[str, Any]) -> dict[str, Any]:
    """Build windows of one observation and one action."""
    length = tf.shape(trajectory["action"])[0]
    window = tf.broadcast_to(tf.range(0, 1), [length, 1]) + tf.range(length)[:, None]
    chosen = tf.maximum(window, 0)
    observation = tf.nest.map_structure(lambda x: tf.gather(x, chosen), trajectory["observation"])
    observation["pad_mask"] = window >= 0
    return {**trajectory, "observation": observation, "action": tf.gather(trajectory["action"], chosen)}


def _pictured(frame: dict[str, Any], *, augment: bool) -> dict[str, Any]:
    """Decode, resize and augment the image of a frame."""
    image = resized(tf.io.decode_jpeg(frame["observation"]["image_primary"][0], channels=3))
    if augment:
        image = augmented(image, tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32))
    return {**frame, "observation": {**frame["observation"], "image_primary": image[None]}}
