"""Small valid sources of every format, for the damage to start from."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.declarations.formats import FolderSource, SourceSpec
from tests import bags
from tests.lerobot import drawn, write_lerobot
from tests.makers import write_csv, write_jsonl, write_video
from tests.pipelines.readers.writers import EPISODES, LANGUAGE, ONCE, WRITERS, Write, said, told_of_bags
from tests.pipelines.toy import jpeg


def write_bag1s(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES[:3]):
        bags.write_bag1(folder / f"take_{i}.bag", said(made), compression="bz2" if i else "")
    return told_of_bags()


def write_compressed_bags(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES[:3]):
        bags.write_bag(folder / f"bag_{i}", said(made), storage="sqlite3", compression="file" if i else "message")
    return told_of_bags()


def write_json_mcaps(folder: Path) -> SourceSpec:
    folder.mkdir(parents=True)
    number = {"type": "object", "properties": {"data": {"type": "array", "items": {"type": "number"}}}}
    for i, made in enumerate(EPISODES[:3]):
        rows = [bags.Said("/action", {"data": row.tolist()}, 10 * at) for at, row in enumerate(made["action"])]
        bags.write_json(folder / f"take_{i}.mcap", {"/action": ("Floats", number)}, rows)
    return told_of_bags().model_copy(update={"topics": {}})


def write_npzs(folder: Path) -> SourceSpec:
    folder.mkdir(parents=True)
    for i, made in enumerate(EPISODES):
        texts = {
            path: np.array([bytes(text).decode() for text in made[path]]) for path in (LANGUAGE, ONCE.replace("/", "."))
        }
        numbers = {path: values for path, values in made.items() if isinstance(values, np.ndarray)}
        save = np.savez_compressed if i % 2 else np.savez
        save(
            folder / f"episode_{i}.npz",
            **numbers,
            **{path: held if path == LANGUAGE else held[0] for path, held in texts.items()},
        )
    return FolderSource(format="folder", episodes="episode_*.npz")


def write_csvs(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES):
        flat = {f"action_{d}": made["action"][:, d].tolist() for d in range(4)}
        write_csv(folder / f"episode_{i}.csv", {**flat, "text": [bytes(text).decode() for text in made[LANGUAGE]]})
    return FolderSource(format="folder", episodes="episode_*.csv")


def write_jsons(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES):
        rows = {"action": made["action"].tolist(), "text": [bytes(text).decode() for text in made[LANGUAGE]]}
        write_jsonl(folder / f"episode_{i}" / "steps.jsonl", rows)
        (folder / f"episode_{i}" / "meta.json").write_text(
            '{"scene": {"name": "kitchen", "ids": [1, 2, 3]}, "rate": 10.5, "done": true, "tags": ["a", "b"]}'
        )
        (folder / f"episode_{i}" / "task.txt").write_text("pick up the cup\n")
        for number, image in enumerate(made["observation.image"]):
            place = folder / f"episode_{i}" / "image" / f"{number}.jpg"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(image)
    return FolderSource(format="folder", episodes="episode_*")


def write_parquets(folder: Path) -> SourceSpec:
    folder.mkdir(parents=True)
    for i, made in enumerate(EPISODES):
        columns = {
            "action": pa.array(made["action"].tolist()),
            "text": [bytes(text).decode() for text in made[LANGUAGE]],
        }
        columns["image"] = pa.array([bytes(image) for image in made["observation.image"]], pa.binary())
        pq.write_table(pa.table(columns), folder / f"episode_{i}.parquet", compression="zstd" if i % 2 else "none")
    return FolderSource(format="folder", episodes="episode_*.parquet")


def write_videos(folder: Path) -> SourceSpec:
    for i, made in enumerate(EPISODES[:3]):
        place = folder / f"episode_{i}"
        place.mkdir(parents=True)
        np.save(place / "action.npy", made["action"])
        write_video(place / "camera.mp4", frames=len(made["action"]))
    return FolderSource(format="folder", episodes="episode_*")


def write_lerobot_videos(folder: Path) -> SourceSpec:
    from schemas.declarations.formats import LerobotSource

    episodes = [
        {"action": np.zeros((4, 2), np.float32), "film": drawn(4, seed=i), "task": ["go"] * 4} for i in range(3)
    ]
    write_lerobot(folder, episodes, version="v3.0", per_file=2)
    return LerobotSource(format="lerobot")


def write_zipped_zarr(folder: Path) -> SourceSpec:
    import shutil

    source = WRITERS["zarr 2"](folder / "open.zarr")
    shutil.make_archive(str(folder / "store.zarr"), "zip", folder / "open.zarr")
    shutil.rmtree(folder / "open.zarr")
    return source


def write_images(folder: Path) -> SourceSpec:
    for i in range(3):
        place = folder / f"episode_{i}" / "image"
        place.mkdir(parents=True)
        for number in range(3):
            (place / f"{number}.jpg").write_bytes(jpeg(number))
    return FolderSource(format="folder", episodes="episode_*")


SOURCES: Mapping[str, Write] = {
    **WRITERS,
    "bag1": write_bag1s,
    "bags, compressed": write_compressed_bags,
    "mcap, json": write_json_mcaps,
    "npz": write_npzs,
    "csv": write_csvs,
    "json": write_jsons,
    "parquet": write_parquets,
    "videos": write_videos,
    "lerobot, videos": write_lerobot_videos,
    "zarr, zipped": write_zipped_zarr,
    "images": write_images,
}
Writer = Callable[[Path], SourceSpec]
