"""What `rdq check` finds of the same faults in the same demonstrations, written as LeRobot v2.1.

    python3 -m venv .venv-peers && .venv-peers/bin/pip install rdq==0.3.4
    .venv/bin/python benchmarks/faultbench/peers.py --rdq .venv-peers/bin/rdq --held-out

An episode counts as found if any finding that is more than information names it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from bench import wilson  # noqa: E402
from faults import EPISODE_FAULTS, FAULTS, MIXED  # noqa: E402
from harness import table  # noqa: E402
from recordings import Group, Recording, groups  # noqa: E402


def write(folder: Path, group: Group, recordings: Sequence[Recording]) -> None:
    """Write a LeRobotDataset v2.1 without cameras."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    start = 0
    for number, one in enumerate(recordings):
        count = len(one)
        columns = {
            "action": pa.array(one.action.astype(np.float32).tolist(), pa.list_(pa.float32())),
            "observation.state": pa.array(one.state.astype(np.float32).tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array(np.arange(count) / group.hz, pa.float32()),
            "frame_index": pa.array(np.arange(count)),
            "episode_index": pa.array(np.full(count, number)),
            "index": pa.array(np.arange(start, start + count)),
            "task_index": pa.array(np.zeros(count, np.int64)),
        }
        pq.write_table(pa.table(columns), folder / f"data/chunk-000/episode_{number:06d}.parquet")
        start += count
    vectors = {"action": group.action, "observation.state": group.state}
    features = {
        name: {"dtype": "float32", "shape": [len(space)], "names": [dim.name for dim in space.dims]}
        for name, space in vectors.items()
    }
    features |= {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}
    features |= {
        name: {"dtype": "int64", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index")
    }
    info = {
        "codebase_version": "v2.1", "robot_type": "arm", "fps": group.hz, "total_episodes": len(recordings),
        "total_frames": start, "total_tasks": 1, "total_videos": 0, "total_chunks": 1, "chunks_size": 1000,
        "splits": {"train": f"0:{len(recordings)}"}, "features": features, "video_path": None,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "lift the cube"}) + "\n")
    lines = [{"episode_index": i, "tasks": ["lift the cube"], "length": len(one)} for i, one in enumerate(recordings)]
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def flagged(rdq: str, group: Group, recordings: Sequence[Recording]) -> set[int]:
    """Return the episodes that rdq names."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, report = Path(temporary) / "set", Path(temporary) / "report.json"
        write(folder, group, recordings)
        run = subprocess.run([rdq, "check", str(folder), "--json", str(report)], capture_output=True, check=False)
        if not report.exists():
            raise SystemExit(run.stderr.decode())
        listed = json.loads(report.read_text())["findings"]
    return {episode for one in listed if one["severity"] != "info" for episode in one["episodes"]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--rdq", required=True, help="the command of rdq")
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    chosen = [group for group in groups(args.data) if group.is_held_out == args.held_out]
    sound: Counter[str] = Counter()
    for group in chosen:
        sound.update(flagged=len(flagged(args.rdq, group, group.recordings)), episodes=len(group.recordings))
    rows = [("none", "-", wilson(sound["flagged"], sound["episodes"]))]
    for name in (*EPISODE_FAULTS, *MIXED):
        fits = EPISODE_FAULTS[name][2] if name in EPISODE_FAULTS else FAULTS[name][2]
        counts: Counter[str] = Counter()
        for number, group in enumerate(one for one in chosen if fits(one)):
            rng = np.random.default_rng([number, len(rows)])
            faulty = set(rng.choice(len(group.recordings), len(group.recordings) // 10, replace=False).tolist())
            change = None if name in EPISODE_FAULTS else FAULTS[name][1](group, rng)
            made = [
                one if i not in faulty else change(one) if change else EPISODE_FAULTS[name][1](group, one, rng)
                for i, one in enumerate(group.recordings)
            ]
            named = flagged(args.rdq, group, made)
            counts.update(
                faulty=len(faulty), right=len(named & faulty), sound=len(made) - len(faulty), wrong=len(named - faulty)
            )
        rows.append((name, wilson(counts["right"], counts["faulty"]), wilson(counts["wrong"], counts["sound"])))
    print(table(("fault", "found by rdq 0.3.4", "sound episodes flagged"), rows))


if __name__ == "__main__":
    main()
