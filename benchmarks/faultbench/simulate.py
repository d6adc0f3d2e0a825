"""Demonstrations of scripted experts in metaworld and robosuite, as recorded by their simulators.

    .venv-sim/bin/python benchmarks/faultbench/simulate.py OUT     (`make sim` creates the environment)

Each task and arm becomes a file of numpy arrays. Episodes depend only on the seed and the versions of the simulators.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before numpy is imported; more threads only wait for each other

import numpy as np  # noqa: E402

TASKS = (  # metaworld's names
    "reach", "push", "pick-place", "drawer-open", "door-open", "button-press-topdown",  # development
    "window-open", "peg-insert-side", "faucet-open", "drawer-close",  # held out
)  # fmt: skip
ARMS = ("Panda", "UR5e", "Sawyer", "IIWA", "Kinova3")  # robosuite's names; the last three are held out
STYLES = ("usual",) * 6 + ("slow", "long", "recovery", "mirrored")
METAWORLD_HZ, ROBOSUITE_HZ = 80, 20
LONGEST = 400  # steps
Step = tuple[Any, Any]  # state and action


def metaworld(task: str, episodes: int) -> Iterator[tuple[str, list[Step]]]:
    """Yield episodes of a scripted expert. State: hand in metres, opening of the gripper; action: change, effort."""
    import gymnasium
    import metaworld as _  # noqa: F401 (registers its environments)
    from metaworld import policies

    env = gymnasium.make("Meta-World/MT1", env_name=f"{task}-v3", seed=0, disable_env_checker=True)
    words = [word.capitalize() for word in task.replace("peg-insert", "peg-insertion").split("-")]
    expert = getattr(policies, f"Sawyer{''.join(words)}V3Policy")()
    for number in range(episodes):
        rng = np.random.default_rng([TASKS.index(task), number])
        style = str(rng.choice(STYLES))
        observed, _info = env.reset(seed=int(rng.integers(2**31)))
        speed = {"slow": 0.35}.get(style, 1.0) * rng.uniform(0.7, 1.0)
        detour = int(rng.integers(10, 30)), rng.uniform(-1, 1, 3)
        pushed = int(rng.integers(8, 20)) if style in {"recovery", "mirrored"} else 0
        pushed += 40 if style == "long" else 0
        drift, steps, ends = np.zeros(3), [], LONGEST
        for step in range(LONGEST):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action = np.clip(expert.get_action(observed), -1, 1)
            drift = 0.8 * drift + rng.normal(0, 0.06, 3)
            if detour[0] <= step < detour[0] + pushed:
                action[:3] = detour[1] * (-1 if style == "long" and (step - detour[0]) % 40 >= 20 else 1)
            action[:3] = np.clip(speed * action[:3] + drift, -1, 1)
            steps.append((observed[:4].copy(), action.astype(np.float32)))
            observed, _reward, _ended, _cut, info = env.step(action.astype(np.float32))
            ends = min(ends, step + 12) if info["success"] else ends
            if step >= ends:
                break
        yield style, steps
    env.close()


def robosuite(arm: str, episodes: int) -> Iterator[tuple[str, list[Step]]]:
    """Yield episodes of a scripted lift with OSC_POSE. State: position, quaternion (xyzw), opening; action: change."""
    import robosuite as suite
    from robosuite import load_composite_controller_config

    env = suite.make(
        "Lift",
        robots=arm,
        controller_configs=load_composite_controller_config(controller="BASIC", robot=arm),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=ROBOSUITE_HZ,
        ignore_done=True,
        hard_reset=False,
    )
    for number in range(episodes):
        rng = np.random.default_rng([100 + ARMS.index(arm), number])
        np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002 (robosuite draws from it)
        style = str(rng.choice(STYLES))
        yield style, _lift(env, rng, style)
    env.close()


def _lift(env: Any, rng: Any, style: str) -> list[Step]:
    """Move over the cube, turn and tilt the hand, go down, close it, and lift."""
    observed = env.reset()
    start, facing = observed["robot0_eef_pos"].copy(), _matrix(observed["robot0_eef_quat_site"])
    cube, side = observed["cube_pos"].copy(), -1 if style == "mirrored" else 1
    above, grasp = cube + np.array([0, 0, rng.uniform(0.08, 0.12)]), cube + np.array([0, 0, rng.uniform(-0.005, 0.005)])
    bow = (start + above) / 2 + [rng.uniform(-0.03, 0.03), side * rng.uniform(0.03, 0.1), rng.uniform(0, 0.05)]
    goals = [(bow, _tilt(rng, 0.35), -1), (above, _tilt(rng, 0.25), -1), (grasp, _tilt(rng, 0.05), -1)]
    if style == "recovery":
        goals[2:2] = [(grasp + rng.uniform(0.02, 0.04, 3), _tilt(rng, 0.2), -1), (above, _tilt(rng, 0.2), -1)]
    if style == "long":
        goals[:0] = [(start + rng.uniform(-0.1, 0.1, 3), _tilt(rng, 0.3), -1) for _ in range(4)]
    goals += [(grasp, None, 1), (cube + np.array([rng.uniform(-0.05, 0.05), side * 0.05, 0.2]), _tilt(rng, 0.3), 1)]
    gain = {"slow": 0.3}.get(style, 1.0) * rng.uniform(0.6, 1.0)
    drift, steps, turn = np.zeros(6), [], np.eye(3)
    for goal, tilt, grip in goals:
        turn = turn if tilt is None else tilt
        for waited in range(70):
            here, now = observed["robot0_eef_pos"], _matrix(observed["robot0_eef_quat_site"])
            left, rest = goal - here, _rotvec(turn @ facing @ now.T)
            if waited >= 6 and np.abs(left).max() < 0.012 and np.abs(rest).max() < 0.12:
                break
            drift = 0.8 * drift + rng.normal(0, 0.02, 6)
            change = np.concatenate([np.clip(gain * 6 * left, -1, 1), np.clip(gain * 1.6 * rest, -1, 1)])
            action = np.append(np.clip(change + drift, -1, 1), grip)
            opening = np.abs(observed["robot0_gripper_qpos"]).mean()
            quaternion = observed["robot0_eef_quat_site"]
            steps.append((np.concatenate([here, quaternion, [opening]]), action))
            observed, *_ = env.step(action)
    return steps


def _tilt(rng: Any, size: float) -> Any:
    """Return a random rotation, mostly about the vertical axis."""
    x, y, z = rng.uniform(-size, size, 3) * [0.6, 0.6, 1.5]
    return _about(2, z) @ _about(1, y) @ _about(0, x)


def _about(axis: int, angle: float) -> Any:
    i, j = [k for k in range(3) if k != axis]
    out = np.eye(3)
    out[i, i] = out[j, j] = np.cos(angle)
    out[i, j], out[j, i] = (-np.sin(angle), np.sin(angle)) if axis != 1 else (np.sin(angle), -np.sin(angle))
    return out


def _matrix(quaternion: Any) -> Any:
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _rotvec(matrix: Any) -> Any:
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / 2
    sine, cosine = np.linalg.norm(axis), (np.trace(matrix) - 1) / 2
    return axis * (np.arctan2(sine, cosine) / sine if sine > 1e-9 else 1.0)


def write(file: Path, episodes: Iterator[tuple[str, list[Step]]], hz: int) -> None:
    """Write the episodes of one task and arm, one after the other."""
    styles, lengths, states, actions = [], [], [], []
    for style, steps in episodes:
        styles.append(style)
        lengths.append(len(steps))
        states += [state for state, _ in steps]
        actions += [action for _, action in steps]
        print(f"\r{file.stem}: {len(styles)} episodes", end="", flush=True)
    print()
    numbers = {"state": np.array(states, np.float32), "action": np.array(actions, np.float32)}
    np.savez_compressed(file, styles=np.array(styles), lengths=np.array(lengths), hz=hz, **numbers)


def main() -> None:
    """Write the files that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--metaworld", type=int, default=60, help="episodes of each task")
    parser.add_argument("--robosuite", type=int, default=45, help="episodes of each arm")
    parser.add_argument("--only", default="", help="write only files whose name contains this")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    groups: list[tuple[str, tuple[str, ...], Callable[..., Any], int, int]] = [
        ("metaworld", TASKS, metaworld, args.metaworld, METAWORLD_HZ),
        ("robosuite", ARMS, robosuite, args.robosuite, ROBOSUITE_HZ),
    ]
    for simulator, names, run, episodes, hz in groups:
        for one in names:
            file = args.out / f"{simulator}_{one}.npz"
            if not file.exists() and args.only in file.name:
                write(file, run(one, episodes), hz)


if __name__ == "__main__":
    main()
