"""Recordings of robots in the layout that LeRobot writes (version 2.1), and in that of ALOHA's HDF5 files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.source import Array

EPISODES, STEPS = 3, 60
SO = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos")
MAIN = tuple(f"main_{name.removesuffix('.pos')}" for name in SO)
LEKIWI = (*(f"arm_{name}" for name in SO), "x.vel", "y.vel", "theta.vel")
PANDA = (*(f"joint_{i}" for i in range(7)), "gripper")
ALOHA = tuple(
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
)
OPENARM = tuple(f"{side}_{name}.pos" for side in ("left", "right") for name in (*PANDA[1:7], "joint_7", "gripper"))
ALOHA_SIZES = ([0.5, 0.5, 0.8, 0.5, 0.8, 0.5, 0.5] * 2, [0, -0.6, 0.6, 0, 0, 0, 0.5] * 2)
PANDA_SIZES = ([0.5] * 8, [0, 0, 0, -2, 0, 1.8, 0, 0.5])
ARM_SIZES = ([40, 40, 40, 50, 40, 30, 60, 30], [0, 0, 0, 60, 0, 0, 0, -32])
LEFT = ([40, 30, 40, 50, 40, 30, 60, 30], [0, -60, 0, 60, 0, 0, 0, -32])
RIGHT = ([40, 30, 40, 50, 40, 30, 60, 30], [0, 60, 0, 60, 0, 0, 0, -32])


@dataclass(frozen=True)
class Motion:
    """The numbers of all episodes: sines around offsets, and commands that are one step ahead."""

    state: Array
    action: Array

    @classmethod
    def of(
        cls, sizes: Sequence[float], offsets: Sequence[float], *, limits: tuple[float, float] | None = None
    ) -> "Motion":
        """Move each number by its size around its offset; `limits` clip all numbers but the last, which is 0 to 100."""
        rng = np.random.default_rng(len(sizes))
        turn = np.linspace(0, 2 * np.pi, STEPS)[:, None]
        waves = [np.sin(turn + rng.uniform(0, 6, len(sizes))) for _ in range(EPISODES)]
        state = np.concatenate([wave * sizes + offsets for wave in waves])
        if limits:
            low, high = np.full(len(sizes), limits[0]), np.full(len(sizes), limits[1])
            low[-1], high[-1] = 0, 100
            state = np.clip(state, low, high)
        ahead = [np.r_[part[1:], part[-1:]] for part in np.split(state, EPISODES)]
        return cls(state.astype(np.float32), np.concatenate(ahead).astype(np.float32))


def so(*sizes: float, is_travel: bool = True) -> Motion:
    """Move the five joints of an SO arm by some sizes, and its gripper from 5 to 95."""
    return Motion.of([*sizes, 45], [0, 0, 0, 0, 0, 50], limits=(-100, 100) if is_travel else None)


def lerobot(
    root: Path,
    robot_type: str,
    motion: Motion,
    names: Sequence[str],
    *,
    fps: int = 30,
    action_names: Sequence[str] | None = None,
) -> Path:
    """Write a recording as LeRobot does, with its bookkeeping columns."""
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    vectors = {"action": motion.action, "observation.state": motion.state}
    for episode in range(EPISODES):
        rows = slice(episode * STEPS, (episode + 1) * STEPS)
        step = np.arange(STEPS)
        columns: dict[str, Any] = {
            name: pa.array(list(values[rows]), pa.list_(pa.float32(), values.shape[1]))
            for name, values in vectors.items()
        }
        columns |= {"timestamp": pa.array(step / fps, pa.float32()), "frame_index": step}
        columns |= {"episode_index": np.full(STEPS, episode), "index": rows.start + step}
        pq.write_table(
            pa.table({**columns, "task_index": np.zeros(STEPS, int)}),
            root / f"data/chunk-000/episode_{episode:06d}.parquet",
        )
    listed = {"action": action_names or names, "observation.state": names}
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [values.shape[1]], "names": [*listed[name]]}
        for name, values in vectors.items()
    }
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": robot_type,
        "total_episodes": EPISODES,
        "total_frames": EPISODES * STEPS,
        "total_tasks": 1,
        "total_videos": 0,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{EPISODES}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None,
        "features": features,
    }
    lines = [{"episode_index": i, "tasks": ["put it there"], "length": STEPS} for i in range(EPISODES)]
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "put it there"}\n')
    return root


def aloha_hdf5(root: Path, motion: Motion, *, has_base: bool = False) -> Path:
    """Write a recording as ALOHA's own recorder does: one HDF5 file for each episode."""
    root.mkdir()
    for episode in range(EPISODES):
        rows = slice(episode * STEPS, (episode + 1) * STEPS)
        with h5py.File(root / f"episode_{episode}.hdf5", "w") as file:
            file.attrs["sim"] = False
            file["observations/qpos"] = motion.state[rows].astype(np.float64)
            file["observations/qvel"] = np.gradient(motion.state[rows].astype(np.float64), axis=0)
            file["action"] = motion.action[rows].astype(np.float64)
            file["observations/images/cam_high"] = np.zeros((STEPS, 4, 4, 3), np.uint8)
            if has_base:
                file["base_action"] = np.tile([0.1, 0.2], (STEPS, 1))
    return root
