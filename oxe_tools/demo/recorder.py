"""Record one motion of an arm as three labs would, and write it as RLDS.

The labs use different units, frames, rotations, gripper conventions, control rates, key names and cameras.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from pipelines.export.rlds.writer import RldsFeature, TfRecordWriter, features_json, info_json
from schemas.files import durable
from schemas.source import Array, Field

EPISODES, STEPS = 4, 24
COLOURS = {"red": "#c8102e", "blue": "#1f4e9c", "green": "#2e7d32", "yellow": "#e0a800"}


@dataclass(frozen=True, slots=True)
class Motion:
    """The true motion of the arm: T + 1 poses in its base frame, in metres, and T + 1 gripper values, 1 = open."""

    position: Array  # [T + 1, 3]
    rotation: Rotation  # T + 1 rotations
    gripper: Array  # [T + 1]
    colour: str  # the block's colour

    @property
    def instruction(self) -> str:
        """The instruction of the motion."""
        return f"pick up the {self.colour} block"

    def deltas(self) -> Array:
        """Return the true action of each step, [T, 7], in the base frame.

        It has the change of position in metres, the change of rotation as roll, pitch and yaw in radians, and the
        gripper value after the step.
        """
        turn = (self.rotation[1:] * self.rotation[:-1].inv()).as_euler("xyz")
        return np.concatenate([np.diff(self.position, axis=0), turn, self.gripper[1:, None]], axis=1)


def motion(seed: int) -> Motion:
    """Return a motion that reaches down to a block, turns the wrist, closes the gripper and lifts."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 1, STEPS + 1)
    start, block = np.array([0.25, 0.0, 0.30]), np.array([0.30, 0.0, 0.05]) + rng.uniform(-0.08, 0.08, 3) * [1, 1, 0]
    reach = np.clip(phase / 0.6, 0, 1)[:, None]
    lift = np.clip((phase - 0.7) / 0.3, 0, 1)[:, None] * [0, 0, 0.15]
    position = start + (block - start) * (3 * reach**2 - 2 * reach**3) + lift
    angles = np.array([np.pi * 0.9, 0, 0]) + reach * rng.uniform(-0.6, 0.6, 3)
    gripper = np.where(phase < 0.65, 1.0, 0.0)
    return Motion(position, Rotation.from_euler("xyz", angles), gripper, list(COLOURS)[seed % len(COLOURS)])


def camera(m: Motion, *, size: int, background: str, overhead: bool = False) -> list[bytes]:
    """Draw the arm and the block, from the side or from above; returns T JPEG images."""
    block = m.position[np.argmin(m.position[:, 2])]
    is_closed = m.gripper < 0.5
    frames = []
    for t in range(STEPS):
        image = Image.new("RGB", (size, size), background)
        draw = ImageDraw.Draw(image)
        at, where = (m.position[t], m.position[t] if is_closed[t] else block)
        axis = 1 if overhead else 2
        x, y = at[0] * size * 1.6, size * (0.5 + at[1] * 2) if overhead else size * (0.9 - at[axis] * 2)
        bx, by = where[0] * size * 1.6, size * (0.5 + where[1] * 2) if overhead else size * (0.9 - where[axis] * 2)
        draw.rectangle((0, size * 0.9, size, size), fill="#6b5b4b")
        draw.rectangle((bx - 5, by - 5, bx + 5, by + 5), fill=COLOURS[m.colour])
        draw.line((size * 0.1, size * 0.9, x * 0.6, y * 0.5, x, y - 8), fill="#404040", width=5)
        spread = 3 + 5 * m.gripper[t]
        draw.line((x - spread, y + 4, x - spread, y - 8, x + spread, y - 8, x + spread, y + 4), fill="black", width=2)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        frames.append(buffer.getvalue())
    return frames


def kitchen(m: Motion) -> dict[str, object]:
    """Return an episode whose actions are deltas in the base frame, in metres and radians; gripper 1 = open."""
    euler = m.rotation.as_euler("xyz")
    return {
        "observation.image": camera(m, size=128, background="#d9e4ec"),
        "observation.wrist_image": camera(m, size=96, background="#e8e8e8", overhead=True),
        "observation.state": np.concatenate([m.position, euler, m.gripper[:, None]], axis=1)[:-1],
        "action": m.deltas(),
        "language_instruction": [m.instruction.encode()] * STEPS,
    }


def bench(m: Motion) -> dict[str, object]:
    """Return an episode whose actions are deltas in the tool frame, in millimetres and degrees.

    The gripper command is 1 = close, -1 = open.
    """
    step = m.rotation[:-1].inv().apply(np.diff(m.position, axis=0)) * 1000
    turn = np.degrees((m.rotation[:-1].inv() * m.rotation[1:]).as_rotvec())
    return {
        "observation.camera_front": camera(m, size=160, background="#efe6d5"),
        "observation.tcp_pose": np.concatenate([m.position * 1000, m.rotation.as_quat()], axis=1)[:-1],
        "observation.gripper_closed": 1 - m.gripper[:-1],
        "action.tool_delta": np.concatenate([step, turn], axis=1),
        "action.gripper_command": 1 - 2 * m.gripper[1:],
        "task": [m.instruction.encode()] * STEPS,
    }


def cell(m: Motion) -> dict[str, object]:
    """Return an episode whose actions are absolute target poses, in metres and as quaternions w, x, y, z.

    The gripper is given by its opening in metres.
    """
    quaternion = m.rotation.as_quat(scalar_first=True)
    return {
        "observation.exterior": camera(m, size=112, background="#dfe8dc"),
        "observation.ee_position": m.position[:-1],
        "observation.ee_quaternion": quaternion[:-1],
        "observation.finger_width": m.gripper[:-1] * 0.08,
        "target_position": m.position[1:],
        "target_quaternion": quaternion[1:],
        "target_width": m.gripper[1:] * 0.08,
        "episode_metadata.prompt": [m.instruction.encode()],
    }


Recorder: TypeAlias = Callable[[Motion], dict[str, object]]
LABS: Mapping[str, Recorder] = {"demo_kitchen": kitchen, "demo_bench": bench, "demo_cell": cell}


def record(lab: str, folder: Path) -> None:
    """Write one lab's episodes as an RLDS dataset at `folder`."""
    temporary = durable.staged(folder)
    shard = TfRecordWriter(temporary)
    features: list[RldsFeature] = []
    for seed in range(EPISODES):
        step = np.arange(STEPS)
        columns = LABS[lab](motion(seed)) | {"is_first": step == 0, "is_last": step == STEPS - 1}
        values = {
            path: v.astype(np.float32) if isinstance(v, np.ndarray) and v.dtype == float else v
            for path, v in columns.items()
        }
        features = [RldsFeature(_field(path, value)) for path, value in values.items()]
        shard.add({feature: values[feature.field.path] for feature in features})  # type: ignore[misc]
    shard.close()
    durable.adopt(temporary, folder / f"{lab}-train.tfrecord-00000-of-00001")
    durable.write(folder / "features.json", features_json(features).encode())
    info = info_json(lab, {"train": [shard]}, version="1.0.0", description="Drawn by 'oxe demo'.")
    durable.write(folder / "dataset_info.json", info.encode())


def _field(path: str, value: object) -> Field:
    if isinstance(value, np.ndarray):
        return Field(path=path, kind="number", dtype=value.dtype.name, shape=value.shape[1:])
    if "observation" in path:
        return Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3), encoding="jpeg")
    return Field(path=path, kind="text", per_step=not path.startswith("episode_metadata"))
