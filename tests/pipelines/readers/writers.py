"""The same episodes in every format, written by the formats' own libraries."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from schemas.declarations.formats import (
    FolderSource,
    Hdf5Source,
    LerobotSource,
    RldsSource,
    RosbagSource,
    SourceSpec,
    ZarrSource,
)
from tests import bags
from tests.bags import Said
from tests.lerobot import write_lerobot
from tests.makers import write_hdf5, write_zarr
from tests.pipelines.toy import columns, write_source

EPISODES = [columns(seed, steps=steps) for seed, steps in enumerate((3, 1, 4, 2, 5))]
LANGUAGE = "language_instruction"
ONCE = "episode_metadata/file_path"


def write_rlds(folder: Path) -> SourceSpec:
    write_source(folder, EPISODES, splits={"train": [3, 2]})
    return RldsSource()


def write_groups(folder: Path) -> SourceSpec:
    for file, (first, end) in {"a_9.hdf5": (0, 3), "a_10.hdf5": (3, 5)}.items():
        named = {f"data/demo_{i + 8}": EPISODES[i] for i in range(first, end)}
        write_hdf5(folder / file, {path: datasets(made) for path, made in named.items()})
    return Hdf5Source(format="hdf5", episodes="data/demo_*")


def write_files(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES):
        write_hdf5(folder / f"episode_{i + 8}.h5", {"/": datasets(made)})
    return Hdf5Source(format="hdf5", episodes="/", files="episode_*.h5")


def write_buffer(zarr_format: Literal[2, 3]) -> Callable[[Path], SourceSpec]:
    def write(folder: Path) -> SourceSpec:
        pytest.importorskip("zarr", reason="the extra 'zarr'")
        held = {path: np.concatenate([np.asarray(made[path]) for made in EPISODES]) for path in EPISODES[0]}
        images = [image for made in EPISODES for image in made["observation.image"]]
        texts = ["language_instruction", "episode_metadata.file_path"]
        decoded = {path: np.array([bytes(item).decode() for item in held[path]]) for path in texts}
        place = {path: path.replace(".", "/") for path in held}
        write_zarr(
            folder,
            {
                **{f"data/{place[path]}": values for path, values in {**held, **decoded}.items() if path != texts[1]},
                "data/observation/image": padded(images),
                place[texts[1]]: decoded[texts[1]],
                "meta/episode_ends": np.cumsum([len(made["action"]) for made in EPISODES]),
            },
            zarr_format=zarr_format,
            chunks={"data/action": (4, 4)},
        )
        return ZarrSource(format="zarr")

    return write


def write_tables(folder: Path) -> SourceSpec:
    for file, (first, end) in {"a_9.hdf5": (0, 3), "a_10.hdf5": (3, 5)}.items():
        tables = [datasets(made) for made in EPISODES[first:end]]
        rows = {path: [value for table in tables for value in table[path]] for path in tables[0] if path != ONCE}
        images = padded([image for made in EPISODES[first:end] for image in made["observation.image"]])
        once = [table[ONCE] for table in tables]
        flags = {"observation/image": images, ONCE: once}
        write_hdf5(folder / file, {"/": {**rows, **flags}})
    return Hdf5Source(format="hdf5", episode_flags=("is_last",))


def write_arrays(folder: Path) -> SourceSpec:
    for number, (first, end) in enumerate([(0, 3), (3, 5)]):
        table = folder / f"table_{number}"
        tables = [datasets(made) for made in EPISODES[first:end]]
        for path in tables[0]:
            (table / path).parent.mkdir(parents=True, exist_ok=True)
            values = [one[path] for one in tables] if path == ONCE else [row for one in tables for row in one[path]]
            texts = path in {ONCE, LANGUAGE}
            if path != "observation/image":
                np.save(table / f"{path}.npy", [bytes(value).decode() for value in values] if texts else values)
        (table / "observation" / "image").mkdir()
        images = [image for made in EPISODES[first:end] for image in made["observation.image"]]
        for i, image in enumerate(images):
            (table / "observation" / "image" / f"{i}.jpg").write_bytes(image)
        np.savez(table / "meta.npz", ends=np.cumsum([len(one["action"]) for one in tables]))
    return FolderSource(format="folder", episodes="table_*", episode_ends="meta/ends")


def write_folders(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES):
        for path, values in made.items():
            place = folder / f"episode_{i + 8}" / path.replace(".", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if path == "observation.image":
                place.mkdir()
                for number, image in enumerate(values):
                    (place / f"{number + 8}.jpg").write_bytes(image)
            elif isinstance(values, np.ndarray):
                np.save(place.with_suffix(".npy"), values)
            else:
                texts = np.array([bytes(item).decode() for item in values])
                np.save(place.with_suffix(".npy"), texts if path == LANGUAGE else texts[0])
    return FolderSource(format="folder", episodes="episode_*")


def padded(images: Sequence[bytes]) -> Any:
    """Pad encoded images to rows of equal length."""
    longest = max(map(len, images))
    return np.stack([np.frombuffer(image.ljust(longest, b"\0"), np.uint8) for image in images])


def write_lerobot_v21(folder: Path) -> SourceSpec:
    return lerobot(folder, version="v2.1")


def write_lerobot_v30(folder: Path) -> SourceSpec:
    return lerobot(folder, version="v3.0", per_file=3)


def lerobot(folder: Path, **how: Any) -> SourceSpec:
    told = [{"episode_metadata.file_path": made["episode_metadata.file_path"][0].decode()} for made in EPISODES]
    episodes = [
        {path: made[path] for path in made if not path.startswith("episode_metadata")}
        | {name: [text.decode() for text in made[LANGUAGE]] for name in (LANGUAGE, "task")}
        for made in EPISODES
    ]
    write_lerobot(folder, episodes, metadata=told, **how)
    return LerobotSource(format="lerobot")


def datasets(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return an episode's columns as HDF5 datasets, with images padded to rows of equal length."""
    changed = {
        "observation.image": padded(made["observation.image"]),
        "episode_metadata.file_path": made["episode_metadata.file_path"][0],
    }
    return {path.replace(".", "/"): value for path, value in {**made, **changed}.items()}


def write_bags(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES):
        bags.write_bag(folder / f"bag_{i + 8}", said(made), storage="sqlite3")
    return told_of_bags()


def write_mcaps(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES):
        bags.write_mcap(folder / f"take_{i + 8}.mcap", said(made))
    return told_of_bags()


def said(made: Mapping[str, Any]) -> list[Said]:
    """Return an episode's columns as messages with only the field `data`, each on its own topic."""
    messages: dict[str, Callable[[int], Any]] = {
        "action": lambda i: bags.msg("toy_msgs/Floats", data=made["action"][i]),
        "observation.state": lambda i: bags.msg("toy_msgs/Floats", data=made["observation.state"][i]),
        "observation.torque": lambda i: bags.msg("toy_msgs/Doubles", data=made["observation.torque"][i]),
        "observation.image": lambda i: bags.compressed(i, made["observation.image"][i]),
        "language_instruction": lambda i: bags.text(made["language_instruction"][i].decode()),
        "is_first": lambda i: bags.msg("std_msgs/Bool", data=bool(made["is_first"][i])),
        "is_last": lambda i: bags.msg("std_msgs/Bool", data=bool(made["is_last"][i])),
    }
    path = bags.text(made["episode_metadata.file_path"][0].decode())
    first = [Said("/episode_metadata/file_path", path, 0)]
    steps = range(len(made["action"]))
    return first + [Said(f"/{at.replace('.', '/')}", of(i), 10 * i) for i in steps for at, of in messages.items()]


def told_of_bags() -> SourceSpec:
    return RosbagSource(format="rosbag", clock="/action", topics={"/episode_metadata/file_path": "once"})


Write = Callable[[Path], SourceSpec]
WRITERS: dict[str, Write] = {
    "rlds": write_rlds,
    "hdf5 groups": write_groups,
    "hdf5 files": write_files,
    "hdf5 tables": write_tables,
    "arrays of tables": write_arrays,
    "zarr 2": write_buffer(2),
    "zarr 3": write_buffer(3),
    "folders": write_folders,
    "lerobot v2.1": write_lerobot_v21,
    "lerobot v3.0": write_lerobot_v30,
    "rosbag2": write_bags,
    "mcap": write_mcaps,
}
