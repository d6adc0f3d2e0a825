"""What every reader promises, whatever the format: the same episodes, written in each of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pipelines.history import History
from pipelines.readers import source
from pipelines.readers.registry import open_source
from pipelines.readers.source import Reader, plan
from schemas.formats import (
    OURS,
    FolderSource,
    Hdf5Source,
    LerobotSource,
    RldsSource,
    RosbagSource,
    SourceSpec,
    ZarrSource,
)
from schemas.source import Column, RawEpisode, Unreadable
from tests import bags
from tests.bags import Said
from tests.lerobot import write_lerobot
from tests.makers import nested, write_hdf5, write_zarr
from tests.pipelines.toy import FIELDS, columns, write_source

EPISODES = [columns(seed, steps=steps) for seed, steps in enumerate((3, 1, 4, 2, 5))]
LANGUAGE = "language_instruction"


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
    """Put encoded images in rows of one length."""
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
    """Name an episode's columns as HDF5 does: images in rows of one length, padded."""
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
    """Say an episode's columns as messages that hold nothing but `data`, each on a topic of its own."""
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


@pytest.fixture(
    params=[
        write_rlds,
        write_groups,
        write_files,
        write_buffer(2),
        write_buffer(3),
        write_folders,
        write_lerobot_v21,
        write_lerobot_v30,
        write_bags,
        write_mcaps,
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    write: Callable[[Path], SourceSpec] = request.param
    return open_source(str(tmp_path / "source"), write(tmp_path / "source"))


def read(reader: Reader, wanted: set[str] | None = None, **arguments: Any) -> list[RawEpisode | Unreadable]:
    return [value for ref in plan(reader.files(), **arguments) for value in reader.read(ref, wanted)]


def listed(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else [bytes(item) for item in nested(column)]


def plain(episode: RawEpisode | Unreadable) -> tuple[Any, ...]:
    assert isinstance(episode, RawEpisode)
    paths = {field.path for field in FIELDS}
    steps = {path: listed(c) for path, c in episode.steps.items() if path in paths}
    return episode.index, steps, {path: v for path, v in episode.metadata.items() if path in paths}


def test_every_declared_episode_is_one_value_in_order_with_the_values_that_were_written(opened: Reader) -> None:
    assert sum(part.count for parts in opened.files().values() for part in parts) == len(EPISODES)
    for i, (value, made) in enumerate(zip(read(opened), EPISODES, strict=True)):
        index, steps, metadata = plain(value)
        wanted = {f.path: listed(made[f.path]) for f in FIELDS if f.per_step}
        assert (index, steps) == (i, wanted)
        assert metadata == {"episode_metadata.file_path": f"e{i}.hdf5"}


def test_the_fields_say_what_the_values_are(opened: Reader) -> None:
    known = {field.path: field for field in opened.fields}
    for field in FIELDS:
        found = known[field.path]
        assert (found.kind, found.per_step, found.ragged) == (field.kind, field.per_step, 0)
        if field.kind == "number":
            assert (found.dtype, found.shape) == (field.dtype, field.shape)


def test_ranges_read_like_the_whole(opened: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [plain(value) for value in read(opened)]
    monkeypatch.setattr(source, "SMALL", 100)
    monkeypatch.setattr(source, "LARGE", 100)
    assert len(plan(opened.files())) == len(EPISODES)
    assert [plain(value) for value in read(opened)] == whole


def test_only_the_columns_asked_for_are_read_and_they_are_the_same(opened: Reader) -> None:
    wanted = {"action", "episode_metadata.file_path"}
    for part, whole in zip(read(opened, wanted), read(opened), strict=True):
        assert isinstance(part, RawEpisode)
        assert {*part.steps, *part.metadata} == wanted
        assert np.array_equal(np.asarray(part.steps["action"]), plain(whole)[1]["action"])


@pytest.mark.parametrize("limit", [0, 2, 4])
def test_a_limit_reads_the_first_episodes(opened: Reader, limit: int) -> None:
    assert [value.index for value in read(opened, limit=limit)] == list(range(limit))


def test_a_file_that_vanished_loses_what_it_held(opened: Reader, tmp_path: Path) -> None:
    parts = [part for parts in opened.files().values() for part in parts]
    (tmp_path / "source" / parts[0].name).unlink()
    values = read(opened)
    assert [value.index for value in values] == list(range(len(EPISODES)))
    lost = [value for value in values if isinstance(value, Unreadable)]
    assert len(lost) == parts[0].count
    assert {value.reason for value in lost} <= {"missing_file", "missing_shard"}


def test_the_history_is_the_same_every_time(opened: Reader) -> None:
    assert History.of(opened) == History.of(opened)
    assert all(file.tail_xxh3_64 and file.bytes for file in History.of(opened).files)


def test_the_layout_that_a_reader_names_opens_the_source_the_same_way(opened: Reader) -> None:
    told = OURS[opened.format](format=opened.format, **opened.layout())
    again = open_source(opened.uri, told)
    assert (again.fields, again.files(), again.layout()) == (opened.fields, opened.files(), opened.layout())


def test_a_sound_source_has_nothing_to_note(opened: Reader) -> None:
    assert list(opened.notes()) == []
