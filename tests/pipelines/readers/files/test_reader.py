"""Sources with a folder or a file per episode, valid and damaged; every episode is one value."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.readers.files import tables
from pipelines.readers.files.guess import guess as guess_names
from pipelines.readers.folder import SourceFolder
from pipelines.readers.history import History
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import guess
from schemas.declarations import catalog
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import RawEpisode
from schemas.store.dataset import open_dataset
from tests.makers import PEAK, write_csv, write_jsonl, write_video
from tests.pipelines.readers.reading import ARM, Opener, Reading, decoded
from tests.pipelines.toy import jpeg, oxe

STEPS = 4
SPEC = f"""
name       = "toy"
control_hz = 10
id         = "episode_path"
language   = "lang"
cameras    = {{ primary = "cam" }}
{ARM}
[action]
joints = "steps.joint"
"""


def make_rows(seed: int = 0, *, steps: int = STEPS) -> dict[str, list[Any]]:
    """Make a table like that of a lab: two joints, a time in nanoseconds, a boolean and a word."""
    rng = np.random.default_rng(seed)
    return {
        "t": [1_700_000_000_000_000_001 + i for i in range(steps)],
        "joint_0": rng.normal(size=steps).tolist(),
        "joint_1": rng.normal(size=steps).tolist(),
        "ok": [i % 2 == 0 for i in range(steps)],
        "word": [f'a, "{i}" ☂' for i in range(steps)],
    }


def write_folder(folder: Path, seed: int = 0, *, steps: int = STEPS) -> Path:
    """Write one episode: a table, a folder of images, and a text."""
    write_csv(folder / "steps.csv", make_rows(seed, steps=steps))
    (folder / "cam").mkdir()
    for i in range(steps):
        (folder / "cam" / f"im_{i + 8}.jpg").write_bytes(jpeg(100 * seed + i))
    (folder / "lang.txt").write_text(f"pick {seed}\n\nconfidence: 0.9\n")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed, number in enumerate((2, 10, 1)):
        write_folder(tmp_path / "source" / f"episode_{number}", seed)
    return tmp_path / "source"


opener = Opener("folder")


def opened(uri: Path, **layout: Any) -> Reader:
    """Open a source; without `episodes` in the layout, they are guessed."""
    if layout and "episodes" not in layout:
        layout["episodes"] = guess_names(SourceFolder.at(str(uri))).source.episodes
    return opener(uri, **layout)


reading = Reading(opened)
read, episodes, outcome, details = reading.read, reading.episodes, reading.outcome, reading.details


def refused(uri: Path, **layout: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        opened(uri, **layout)
    return caught.value


def declare(folder: Path, source: str) -> Path:
    (folder / "toy.toml").write_text(f"source = {source}\n{SPEC}")
    return folder / "toy.toml"


# --- layouts ---


def test_folders_come_in_the_order_of_their_numbers_with_tables_images_and_texts(source: Path) -> None:
    reader = opened(source)
    assert reader.layout() == {"episodes": "episode_*"}
    found = episodes(source, ignore_lines="confidence: *")
    for episode, number, seed in zip(found, (1, 2, 10), (2, 0, 1), strict=True):
        made = make_rows(seed)
        assert episode.metadata == {"episode_path": f"episode_{number}", "lang": [f"pick {seed}"]}
        assert list(episode.steps["cam"]) == [jpeg(100 * seed + i) for i in range(STEPS)]
        joints = np.asarray(episode.steps["steps.joint"])
        assert np.array_equal(joints, np.stack([made["joint_0"], made["joint_1"]], -1))
        times = np.asarray(episode.steps["steps.t"])
        assert (times.dtype, times.tolist()) == (np.int64, made["t"])
        assert np.asarray(episode.steps["steps.ok"]).tolist() == made["ok"]
        assert [bytes(word).decode() for word in episode.steps["steps.word"]] == made["word"]


@pytest.mark.parametrize("form", ["npz", "compressed", "jsonl", "csv", "npy"])
def test_a_file_may_be_an_episode(tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, STEPS, 2))
    for i, held in enumerate(values):
        save = {"npz": np.savez, "compressed": np.savez_compressed}
        if form in save:
            save[form](tmp_path / f"{i + 9}.npz", action=held)
        elif form == "npy":
            np.save(tmp_path / f"{i + 9}.npy", held)
        elif form == "jsonl":
            write_jsonl(tmp_path / f"{i + 9}.jsonl", {"obs.x": held.tolist()})
        else:
            write_csv(tmp_path / f"{i + 9}.csv", {"x[0]": held[:, 0], "x[1]": held[:, 1]})
    ending = {"compressed": "npz"}.get(form, form)
    path = {"npz": "action", "npy": "values", "jsonl": "obs.x", "csv": "x"}[ending]
    assert guess(str(tmp_path)) == ("folder", str(tmp_path))
    found = episodes(tmp_path)
    assert [np.asarray(e.steps[path]).tolist() for e in found] == values.tolist()
    assert [e.metadata["episode_path"] for e in found] == [f"{i}.{ending}" for i in (9, 10, 11)]
    assert episodes(tmp_path / f"9.{ending}")[0].steps.keys() == {path}


def test_arrays_of_any_order_texts_and_single_values(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (STEPS, 5, 6, 3), np.uint8)
    held = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(STEPS, 3)),
        "big": np.arange(STEPS, dtype=">i2"),
        "words": np.array(["pick ☂", "", "x", "y"]),
        "task": np.array("lift ☂"),
        "gain": np.float32(0.5),
        "matrix": np.eye(3),
        "front": frames,
        "ahead": np.arange(STEPS + 1),
    }
    (tmp_path / "e_0").mkdir()
    np.savez_compressed(tmp_path / "e_0/all.npz", **held)
    np.save(tmp_path / "e_0/grey.npy", np.asfortranarray(frames[..., :1]))
    told = {"per_episode": ["all.matrix"], "drop_last": ["all.ahead"]}
    (episode,) = episodes(tmp_path, **told)
    assert episode.n_steps() == STEPS
    assert np.array_equal(np.asarray(episode.steps["all.fortran"]), held["fortran"])
    assert np.asarray(episode.steps["all.big"]).dtype == np.dtype("<i2")
    assert [bytes(x).decode() for x in episode.steps["all.words"]] == held["words"].tolist()
    assert np.array_equal([decoded(image) for image in episode.steps["all.front"]], frames)
    assert np.array_equal([decoded(image) for image in episode.steps["grey"]], frames[..., 0])
    values = [episode.metadata[f"all.{name}"] for name in ("task", "gain", "matrix")]
    assert values == ["lift ☂", 0.5, np.eye(3).tolist()]
    assert opened(tmp_path, **told).layout() == {"episodes": "e_*", **told}


def test_videos_and_nested_folders_are_fields(tmp_path: Path) -> None:
    folder = tmp_path / "demo_1"
    write_jsonl(folder / "low_dim.jsonl", {"q": [[0.0, 1.0]] * 10, "grip": {"open": [True] * 10}})
    write_video(folder / "videos/wrist.mp4", frames=10)
    (folder / "obs/rgb").mkdir(parents=True)
    for i in range(10):
        (folder / f"obs/rgb/{i:06d}.png").write_bytes(Image_png(i))
    (folder / "meta.json").write_text(json.dumps({"task": "lift", "size": [1, 2], "robot": {"id": 7}}))
    (episode,) = episodes(tmp_path)
    assert set(episode.steps) == {"low_dim.q", "low_dim.grip.open", "videos.wrist", "obs.rgb"}
    assert episode.n_steps() == 10
    assert all(bytes(image[:2]) == b"\xff\xd8" for image in episode.steps["videos.wrist"])
    assert bytes(episode.steps["obs.rgb"][3]) == Image_png(3)
    told = {path: episode.metadata[f"meta.{path}"] for path in ("task", "size", "robot.id")}
    assert told == {"task": "lift", "size": [1.0, 2.0], "robot.id": 7.0}
    (lossless,) = episodes(tmp_path, images="png")
    assert bytes(lossless.steps["videos.wrist"][0][:4]) == b"\x89PNG"


def Image_png(number: int) -> bytes:  # noqa: N802 - beside `jpeg`
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_memory_reads_like_the_disk(source: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(source), "/loose", recursive=True)
    try:
        assert repr([(e.steps, e.metadata) for e in episodes("memory://loose")]) == repr(
            [(e.steps, e.metadata) for e in episodes(source)]
        )
    finally:
        memory.rm("/loose", recursive=True)


def test_episodes_may_be_in_subfolders_and_bridge_is_read_without_its_pickles(tmp_path: Path) -> None:
    """BridgeData's raw trajectories: images and texts are read, pickles are not."""
    for number in (0, 1, 10):
        folder = tmp_path / f"bridge/toykitchen/00/raw/traj_group0/traj{number}"
        write_folder(folder, number)
        (folder / "cam").rename(folder / "images0")
        (folder / "steps.csv").unlink()
        for name in ("obs_dict", "policy_out"):
            (folder / f"{name}.pkl").write_bytes(b"\x80\x04.")
    pattern = "bridge/*/*/raw/traj_group*/traj*"
    error = refused(tmp_path, episodes=pattern)
    assert "obs_dict.pkl: a pickle, which is never read" in str(error)
    found = episodes(tmp_path, episodes=pattern, ignore=["obs_dict", "policy_out"], ignore_lines="confidence:*")
    assert [e.metadata["lang"] for e in found] == [["pick 0"], ["pick 1"], ["pick 10"]]
    assert [len(e.steps["images0"]) for e in found] == [STEPS] * 3


# --- tables ---


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("csv", "a,b\n1,2\n3\n", "row 1: 1 cells, but the first line names 2 columns"),
        ("csv", "a,b\n1,2\n3,\n", "b: row 1 has no value"),
        ("csv", "a,a\n1,2\n", "a different name for each column"),
        ("csv", "", "the first line must contain"),
        ("csv", "a,b\n", "contains no rows"),
        ("csv", 'a\n"1\n', "line 2"),
        ("csv", "a\n1.5\n9007199254740993\n", "mixes fractions with integers above 2**53"),
        ("csv", "a\n99999999999999999999\n", "more than 64 bits"),
        ("jsonl", '{"a": 1}\n{"b": 1}\n', "row 1: 'a' is not in every row"),
        ("jsonl", '{"a": 1}\n{"a": null}\n', "a contains null, numbers: expected"),
        ("jsonl", '{"a": 1}\n{"a": "x"}\n', "a contains numbers, texts: expected"),
        ("jsonl", '{"a": [1, 2]}\n{"a": [1]}\n', "lists of unequal length"),
        ("jsonl", '{"a": 1}\n{"a": tru\n', "row 1 is not JSON"),
        ("jsonl", '{"a": ["x"]}\n', "a contains texts: expected"),
        ("jsonl", '{"a": []}\n', "a contains empty lists: expected"),
        ("jsonl", '{"a": 1, "a": 2}\n', "a key occurs twice"),
        ("jsonl", '{"a.b": 1, "a": {"b": 2}}\n', "a key occurs twice"),
        ("jsonl", "[1]\n", "row 0 is not a JSON object"),
        ("jsonl", "[" * 100_000 + "\n", "row 0 is not JSON"),
        ("jsonl", "\n", "contains no rows"),
    ],
)
def test_an_invalid_table_is_refused_by_name(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / f"0.{name}").write_text(content)
    error = refused(tmp_path, episodes=f"*.{name}")
    assert error.reason == "bad_table"
    assert words in error.message
    assert error.file.endswith(f"0.{name}")


def test_cells_that_are_not_numbers_make_a_column_of_texts(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("\ufeffa,b,c\n1,1_0,\n2,x,y\n")
    (tmp_path / "1.csv").write_text("a,b,c\n1,1,2\n")
    (tmp_path / "2.csv").write_text("a,b,c\nx,y,z\n")
    (tmp_path / "3.csv").write_text("a,b,c\nnan,y,z\n")
    values = read(tmp_path)
    first, second, third, fourth = values
    assert isinstance(first, RawEpisode)
    assert isinstance(second, RawEpisode)
    assert isinstance(fourth, RawEpisode)
    assert np.asarray(first.steps["a"]).tolist() == [1.0, 2.0]
    assert [bytes(x) for x in first.steps["b"]] == [b"1_0", b"x"]
    assert [bytes(x) for x in second.steps["c"]] == [b"2"]
    assert getattr(third, "reason", "") == "contradicts_fields"
    assert np.isnan(np.asarray(fourth.steps["a"])).all()


def test_columns_and_keys_that_are_ignored_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "e_0").mkdir()
    (tmp_path / "e_0/a.csv").write_text("x,y\n1,1\n2,\n")
    (tmp_path / "e_0/b.jsonl").write_text('{"x": " \u2028", "y": null}\n{"x": "b", "z": [1, "c"]}\n')
    (tmp_path / "e_0/c.json").write_text('{"x": 1, "y": ["tag"], "z": null}')
    (episode,) = episodes(tmp_path, ignore=["a.y", "b.y", "b.z", "c.y"])
    assert {*episode.steps, *episode.metadata} == {"a.x", "b.x", "c.x", "episode_path"}
    assert [bytes(x).decode() for x in episode.steps["b.x"]] == [" \u2028", "b"]


@given(st.lists(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53), min_size=1))
def test_a_number_comes_back_as_it_was_written(numbers: list[float]) -> None:
    rows = "".join(f"{number!r}\n" for number in numbers)
    piece = tables.table_fields(f"x\n{rows}".encode(), "t.csv")["x"]
    assert piece.read(len(numbers)).tolist() == [float(number) for number in numbers]
    lines = "".join(json.dumps({"x": number}) + "\n" for number in numbers)
    assert tables.table_fields(lines.encode(), "t.jsonl")["x"].read(len(numbers)).tolist() == [
        float(n) for n in numbers
    ]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1).filter(lambda held: max(map(abs, held)) > 2**53))
def test_whole_numbers_that_a_float_cannot_hold_stay_whole(numbers: list[int]) -> None:
    piece = tables.table_fields("\n".join(["x", *map(str, numbers)]).encode(), "t.csv")["x"]
    assert piece.read(len(numbers)).tolist() == numbers
    assert piece.leaf.field.dtype == "int64"


# --- episodes unlike the first one ---


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda e: (e / "steps.csv").unlink(), "contradicts_fields", "'steps.joint' is missing"),
        (lambda e: (e / "cam/im_10.jpg").unlink(), "frame_count", "frames are missing between im_9.jpg and im_11.jpg"),
        (lambda e: (e / "cam/im_11.jpg").unlink(), "frame_count", "cam has 3 frames, but there are 4 rows"),
        (lambda e: (e / "cam/x.jpg").write_bytes(jpeg(0)), "frame_count", "x.jpg has no number"),
        (lambda e: (e / "cam/im_9.jpg").write_bytes(b""), "bad_image", "im_9.jpg is empty"),
        (lambda e: (e / "more.txt").write_text("x"), "contradicts_fields", "'more' is not in the first episode"),
        (lambda e: (e / "data.bin").write_text("x"), "unsupported_field", "source.ignore = ['data.bin']"),
        (lambda e: (e / "x.pkl").write_bytes(b"x"), "unsupported_field", "a pickle"),
        (lambda e: (e / "cam.mp4").write_text("x"), "bad_video", ""),
        (lambda e: (e / "lang.txt").write_bytes(b"\xff"), "bad_utf8", "not UTF-8"),
        (lambda e: (e / "steps.csv").write_text("version https://git-lfs.github.com/spec/v1\n"), "lfs_pointer", ""),
    ],
)
def test_an_episode_unlike_the_first_one_is_quarantined_alone(
    source: Path, change: Callable[[Path], Any], reason: str, words: str
) -> None:
    change(source / "episode_2")
    assert outcome(source) == ["ok", reason, "ok"]
    assert words in details(source)
    assert str(source) not in details(source)


def test_a_missing_text_is_empty(source: Path) -> None:
    (source / "episode_2/lang.txt").unlink()
    assert [e.metadata["lang"] for e in episodes(source)][1] == []


def test_time_stamps_as_names_are_declared(source: Path) -> None:
    for folder in source.iterdir():
        for i, image in enumerate(sorted((folder / "cam").iterdir(), key=lambda path: int(path.stem[3:]))):
            image.rename(folder / f"cam/{1_700_000_000 + i * 33}.jpg")
    assert "declare source.unnumbered = ['cam']" in str(refused(source))
    assert list(episodes(source, unnumbered=["cam"])[0].steps["cam"]) == [jpeg(200 + i) for i in range(STEPS)]


def test_an_episode_that_vanished_is_missing_and_an_empty_one_too(source: Path) -> None:
    reader = opened(source)
    (ref,) = plan(reader.files())
    (source / "episode_2/steps.csv").unlink()
    reasons = [getattr(value, "reason", "ok") for value in reader.read(ref)]
    assert reasons == ["ok", "missing_file", "ok"]
    (source / "episode_3").mkdir()
    assert outcome(source) == ["ok", "contradicts_fields", "missing_file", "ok"]


# --- damage and limits ---


def test_what_may_be_a_pickle_is_refused_in_arrays_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", action=np.zeros((3, 2)), odd=np.array([{}, None, 1], object))
    assert "odd contains Python objects" in str(refused(tmp_path))
    assert len(episodes(tmp_path, ignore=["odd"])) == 1
    np.save(tmp_path / "0.npy", np.array([{}], object))
    assert "values contains Python objects" in str(refused(tmp_path, episodes="*.npy"))
    (tmp_path / "0.pkl").write_bytes(b"\x80\x04.")
    assert "a pickle" in str(refused(tmp_path, episodes="*.pkl"))


@pytest.mark.parametrize("count", [10, 500, None])
def test_a_truncated_npz_is_counted(tmp_path: Path, count: int | None) -> None:
    for i in range(2):
        np.savez_compressed(tmp_path / f"{i}.npz", action=np.random.default_rng(i).normal(size=(100, 2)))
    content = (tmp_path / "1.npz").read_bytes()
    (tmp_path / "1.npz").write_bytes(content[:count] if count else content[:200] + b"\xff\xff\xff" + content[203:])
    assert outcome(tmp_path) == ["ok", "truncated" if count else "unreadable"]
    assert str(tmp_path) not in details(tmp_path)


def header(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue()


def test_an_array_that_says_it_is_larger_than_it_is_takes_no_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", action=np.zeros((3, 2)))
    with zipfile.ZipFile(tmp_path / "1.npz", "w") as file:
        file.writestr("action.npy", header((1 << 50, 2)))
    assert outcome(tmp_path) == ["ok", "truncated"]
    assert "but its header declares" in details(tmp_path)


def test_a_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.readers import fields as leaves

    np.savez(tmp_path / "0.npz", action=np.zeros((3, 2)))
    np.savez_compressed(tmp_path / "1.npz", action=np.zeros((1 << 20, 2)))
    assert (tmp_path / "1.npz").stat().st_size < 1 << 15
    monkeypatch.setattr(leaves, "COLUMN_BYTES", 1 << 20)
    assert outcome(tmp_path) == ["ok", "too_large"]


def test_a_large_file_is_not_read_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLE_LIMIT", 100)
    write_csv(tmp_path / "0.csv", make_rows())
    assert refused(tmp_path).reason == "too_large"


def test_folders_that_are_nested_too_deeply_or_loop_are_refused(source: Path) -> None:
    (source / "episode_2/loop").symlink_to(source / "episode_2")
    assert outcome(source) == ["ok", "unsafe_link", "ok"]


def test_large_arrays_of_frames_take_the_memory_of_some_frames(tmp_path: Path) -> None:
    """One episode has 450 MB of raw frames; only the encoded ones are kept in memory."""
    np.savez(tmp_path / "0.npz", img=np.full((300, 700, 700, 3), 7, np.uint8))
    code = f"""
import sys
from pipelines.readers.files.reader import EpisodeFilesReader
from pipelines.readers.reader import plan
from schemas.declarations.formats import FolderSource
source = FolderSource(format="folder", episodes="*", images="jpeg 90")
reader = EpisodeFilesReader(sys.argv[1], source)
before = {PEAK}
(episode,) = [episode for ref in plan(reader.files()) for episode in reader.read(ref)]
print(episode.n_steps(), ({PEAK} - before) >> 10)
"""
    root = Path(__file__).parents[4]
    words = [sys.executable, "-c", code, str(tmp_path)]
    count, megabytes = map(
        int, subprocess.run(words, capture_output=True, text=True, cwd=root, check=True).stdout.split()
    )
    assert count == 300
    assert megabytes < 100


# --- declarations and commands ---


def test_a_wrong_declaration_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"source.*episodes"):
        catalog.dataset(str(declare(tmp_path, '{ format = "folder" }')))
    with pytest.raises(UsageError, match=r"nothing here is called 'x\*'"):
        opened(tmp_path, episodes="x*")
    with pytest.raises(UsageError, match=r"x\.npz: no such file"):
        opened(tmp_path / "x.npz")
    with pytest.raises(UsageError, match="no episodes here"):
        opened(tmp_path)


def test_inspect_convert_append_and_verify_work_on_folders(source: Path, tmp_path: Path) -> None:
    found = oxe("inspect", source, "--json").json()
    assert (found["format"], found["episodes"], found["steps"]) == ("folder", 3, 3 * STEPS)
    assert "source.episodes was guessed: 'episode_*'" in oxe("inspect", source).out
    told = '{ format = "folder", uri = "source", episodes = "episode_*", ignore_lines = "confidence:*" }'
    spec = declare(tmp_path, told)
    assert oxe("datasets", "check", spec).code == 0
    assert oxe("convert", spec, "--out", tmp_path / "out").code == 0
    write_folder(source / "episode_11", 4)
    assert oxe("convert", spec, "--out", tmp_path / "out", "--append").code == 0
    assert oxe("verify", tmp_path / "out").code == 0
    dataset = open_dataset(tmp_path / "out")
    assert [dataset.episode(i).id for i in range(4)] == [f"episode_{i}" for i in (1, 2, 10, 11)]
    assert dataset.episode(3).instructions == ("pick 4",)


def test_a_changed_episode_is_noticed(source: Path) -> None:
    before = History.of(opened(source))
    (source / "episode_2/lang.txt").write_text("another text")
    assert History.of(opened(source)).since(before).changed == ("episode_2/steps.csv",)
