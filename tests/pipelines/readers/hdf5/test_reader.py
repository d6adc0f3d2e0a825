"""HDF5 files, valid and damaged; every planned episode is one value."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.convert.convert import convert
from pipelines.readers.hdf5 import columns as hdf5_columns
from pipelines.readers.reader import plan
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SourceError, SpecError, UsageError
from schemas.store.dataset import open_dataset
from tests.makers import write_hdf5
from tests.pipelines.readers.demos import (
    DEMOS,
    converted,
    declare,
    details,
    edit,
    episodes,
    make_demo,
    opened,
    opener,
    outcome,
    write_demos,
)
from tests.pipelines.readers.reading import decoded
from tests.pipelines.toy import jpeg, oxe

h5py = pytest.importorskip("h5py", reason="the extra 'hdf5'")


# --- layouts ---


def test_demos_come_in_the_order_of_their_numbers_with_their_place_and_attributes(tmp_path: Path) -> None:
    found = episodes(write_demos(tmp_path / "x.hdf5"))
    assert [episode.metadata for episode in found] == [
        {
            "episode_path": f"x.hdf5/data/demo_{number}",
            "attrs.num_samples": 4,
            "parent.env_args": '{"env_name": "Lift"}',
        }
        for number in (8, 9, 10)
    ]
    for seed, episode in enumerate(found):
        made = make_demo(seed)
        assert set(episode.steps) == {path.replace("/", ".") for path in made}
        for path in ("actions", "obs/eef_pos", "dones"):
            column = np.asarray(episode.steps[path.replace("/", ".")])
            assert column.dtype == made[path].dtype
            assert np.array_equal(column, made[path])


def test_raw_frames_become_png_without_loss(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 1), np.uint8)
    (episode,) = episodes(write_demos(tmp_path / "x.hdf5", 1, **{"obs/grey": grey}))
    frames = [decoded(image) for image in episode.steps["obs.agentview_image"]]
    assert np.array_equal(frames, make_demo()["obs/agentview_image"])
    assert np.array_equal([decoded(image) for image in episode.steps["obs.grey"]], grey[..., 0])


def test_raw_frames_become_jpeg_where_that_is_declared(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (4, 64, 64, 3))
    file = write_demos(tmp_path / "x.hdf5", 1, **{"obs/agentview_image": smooth})
    (episode,) = episodes(file, images="jpeg 95")
    for image in episode.steps["obs.agentview_image"]:
        assert bytes(image[:2]) == b"\xff\xd8"
        assert np.abs(decoded(image).astype(int) - smooth[0]).max() <= 3


def test_frames_are_read_in_whole_chunks_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (50, 8, 6, 3), np.uint8)
    file = write_hdf5(tmp_path / "x.hdf5", {"/": {"actions": np.zeros((50, 2))}})
    edit(file, lambda f: f.create_dataset("image", data=frames, chunks=(7, 8, 6, 3), compression="gzip"))
    monkeypatch.setattr(hdf5_columns, "BLOCK", 1 << 18)  # two chunks
    (episode,) = episodes(file, episodes="/")
    assert np.array_equal([decoded(image) for image in episode.steps["image"]], frames)


def test_one_file_is_one_episode_where_that_is_declared(tmp_path: Path) -> None:
    """ALOHA and ACT: `observations/images/cam` and `action` at the top, and a file per episode."""
    for number in (0, 2, 10):
        made = {"action": np.full((3, 14), number), "observations/images/top": np.zeros((3, 4, 4, 3), np.uint8)}
        write_hdf5(tmp_path / f"episode_{number}.hdf5", {"/": made}, {"/": {"sim": False}})
    found = episodes(tmp_path, episodes="/")
    assert [int(np.asarray(e.steps["action"])[0, 0]) for e in found] == [0, 2, 10]
    assert found[2].metadata == {"episode_path": "episode_10.hdf5", "attrs.sim": False}


@pytest.mark.parametrize("form", ["padded", "lists", "texts"])
def test_encoded_images_pass_through_without_their_padding(tmp_path: Path, form: str) -> None:
    images = [jpeg(seed) for seed in range(3)]
    longest = max(map(len, images)) + 5
    held = {
        "padded": np.stack([np.frombuffer(image.ljust(longest, b"\0"), np.uint8) for image in images]),
        "texts": np.array(images, f"S{longest}"),
    }
    file = write_hdf5(
        tmp_path / "x.hdf5", {"/": {"action": np.zeros((3, 2)), **({"top": held[form]} if form in held else {})}}
    )
    if form == "lists":
        lists = np.array([np.frombuffer(image, np.uint8) for image in images], object)
        edit(file, lambda f: f.create_dataset("top", data=lists, dtype=h5py.vlen_dtype(np.uint8)))
    (episode,) = episodes(file, episodes="/")
    assert list(episode.steps["top"]) == images


def test_a_row_of_zeros_among_encoded_images_is_a_frame_that_was_never_written(tmp_path: Path) -> None:
    rows = np.stack([np.frombuffer(jpeg(0).ljust(2000, b"\0"), np.uint8)] * 3)
    for number in range(2):
        held = {"action": np.zeros((3, 2)), "top": rows * (np.arange(3)[:, None] != 2 * number).astype(np.uint8)}
        write_hdf5(tmp_path / f"{number + 1}.hdf5", {"/": held})
    write_hdf5(tmp_path / "0.hdf5", {"/": {"action": np.zeros((3, 2)), "top": rows}})
    assert outcome(tmp_path, episodes="/") == ["ok", "contradicts_fields", "bad_image"]
    assert "top: row 2 contains only zeros, so its frame was never written" in details(tmp_path, episodes="/")


@pytest.mark.parametrize(
    ("groups", "pattern"),
    [
        (["data/demo_0", "data/demo_1"], "data/demo_*"),
        (["traj_0", "traj_1"], "traj_*"),
        (["observations/images"], "/"),
    ],
)
def test_the_layout_is_guessed_where_nothing_is_declared(tmp_path: Path, groups: list[str], pattern: str) -> None:
    made = {path: {"x": np.zeros((2, 1))} for path in groups}
    file = write_hdf5(tmp_path / "x.h5", {**made, **({"/": {"action": np.zeros((2, 1))}} if pattern == "/" else {})})
    assert opened(file).layout() == {"episodes": pattern}


def test_files_may_be_in_subfolders(tmp_path: Path) -> None:
    for task in ("b", "a"):
        write_demos(tmp_path / task / "panda" / "demo.hdf5", 1)
        write_demos(tmp_path / task / "other.hdf5", 1)
    reader = opened(tmp_path, files="*/panda/*.hdf5")
    assert [part.name for part in reader.files()["train"]] == ["a/panda/demo.hdf5", "b/panda/demo.hdf5"]


def test_texts_numbers_of_any_order_and_single_values(tmp_path: Path) -> None:
    more = {
        "words": ["pick ☂", "", "x", "y"],
        "fixed": np.array([b"a", b"bc", b"", b"d"]),
        "big": np.arange(4, dtype=">f4"),
        "task": "lift ☂",
        "gain": np.float32(0.5),
        "nothing": h5py.Empty("f4"),
        "intrinsics": np.eye(3),
    }
    (episode,) = episodes(write_demos(tmp_path / "x.hdf5", 1, **more), per_episode=["intrinsics"])
    assert list(episode.steps["words"]) == ["pick ☂".encode(), b"", b"x", b"y"]
    assert list(episode.steps["fixed"]) == [b"a", b"bc", b"", b"d"]
    assert np.asarray(episode.steps["big"]).dtype == np.dtype("<f4")
    assert np.asarray(episode.steps["big"]).tolist() == [0, 1, 2, 3]
    assert [episode.metadata[name] for name in ("task", "gain", "nothing")] == ["lift ☂", 0.5, None]
    assert episode.metadata["intrinsics"] == np.eye(3).tolist()


def test_memory_reads_like_the_disk(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    memory = fsspec.filesystem("memory")
    memory.put(str(file), "/robomimic/x.hdf5")
    try:
        for uri in ("memory://robomimic", "memory://robomimic/x.hdf5"):
            assert repr([(e.steps, e.metadata) for e in episodes(uri)]) == repr(
                [(e.steps, e.metadata) for e in episodes(file)]
            )
    finally:
        memory.rm("/robomimic", recursive=True)


# --- lengths ---


def test_columns_of_unequal_length_are_quarantined_or_read_as_declared(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5", **{"obs/eef_pos": np.arange(15.0).reshape(5, 3)})
    spec = catalog.dataset(str(declare(tmp_path, '{ format = "hdf5", episodes = "data/demo_*" }')))
    report = convert(spec, tmp_path / "plain", source=str(file))
    assert (report.kept, report.quarantined) == (0, {"unequal_lengths": 3})
    detail = pq.read_table(tmp_path / "plain/meta/quarantine.parquet")["detail"][0].as_py()
    assert detail == (
        "columns of unequal length: obs.eef_pos has 5 steps, actions and 2 more have 4 steps; "
        "if they end with an observation after the last action, set source.drop_last = ['obs.eef_pos']"
    )
    dropped = converted(tmp_path, file, '{ format = "hdf5", episodes = "data/demo_*", drop_last = ["obs.eef_pos"] }')
    assert len(dropped) == 3
    assert np.asarray(dropped.episode(0).raw["obs.eef_pos"]).tolist() == np.arange(12.0).reshape(4, 3).tolist()


def test_what_is_ignored_is_not_read(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5", **{"user/ticks": np.zeros(9), "user/0/ticks": np.zeros(7)})
    assert "user.ticks" not in episodes(file, ignore=["user"])[0].steps
    assert len(converted(tmp_path, file, '{ format = "hdf5", episodes = "data/demo_*", ignore = ["user"] }')) == 3


def test_a_number_that_is_not_finite_is_quarantined(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    edit(file, lambda f: f["data/demo_9/actions"].__setitem__((1, 0), np.nan))
    spec = catalog.dataset(str(declare(tmp_path, '{ format = "hdf5", episodes = "data/demo_*" }')))
    report = convert(spec, tmp_path / "out", source=str(file))
    assert (report.kept, report.quarantined) == (2, {"non_finite_action": 1})


def test_an_episode_without_steps_is_dropped(tmp_path: Path) -> None:
    file = write_hdf5(tmp_path / "x.hdf5", {"data/demo_0": make_demo(), "data/demo_1": make_demo(steps=0)})
    spec = catalog.dataset(str(declare(tmp_path, '{ format = "hdf5", episodes = "data/demo_*" }')))
    report = convert(spec, tmp_path / "out", source=str(file))
    assert (report.kept, report.dropped, report.quarantined) == (1, {"zero_steps": 1}, {})


# --- episodes unlike the first one ---


def replaced(path: str, values: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[path]
        if values is not None:
            file[path] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("data/demo_9/actions", None), "'actions' is missing"),
        (
            replaced("data/demo_9/actions", np.zeros((4, 3))),
            "actions is numbers float64 [3] here and numbers float64 [2]",
        ),
        (replaced("data/demo_9/obs/eef_pos", np.zeros((4, 3))), "obs.eef_pos is numbers float64 [3] here"),
        (replaced("data/demo_9/dones", np.array([1, 2, 3, 4])), "dones is numbers int64 [] here"),
        (replaced("data/demo_9/dones", np.array([b"a"] * 4)), "dones is texts object [] here"),
        (lambda f: f["data/demo_9"].create_dataset("more", data=np.zeros(4)), "'more' is not in the first episode"),
        (lambda f: f["data/demo_9"].attrs.update({"more": 1}), "'attrs.more' is not in the first episode"),
        (replaced("data/demo_9", np.zeros(3)), "expected an episode's group"),
    ],
)
def test_an_episode_unlike_the_first_one_is_quarantined_alone(
    tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    edit(file, change)
    assert outcome(file, episodes=DEMOS) == ["ok", "contradicts_fields", "ok"]
    assert words in details(file, episodes=DEMOS)


def test_narrower_numbers_are_widened_and_a_missing_attribute_is_null(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    narrow = np.float32([[0.1, 2]] * 4)
    edit(file, replaced("data/demo_9/actions", narrow))
    edit(file, lambda f: f["data/demo_9"].attrs.__delitem__("num_samples"))
    found = episodes(file)[1]
    assert np.asarray(found.steps["actions"]).dtype == np.float64
    assert np.array_equal(np.asarray(found.steps["actions"]), narrow)
    assert found.metadata["attrs.num_samples"] is None


# --- damage ---


def test_a_truncated_file_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_demos(tmp_path / f"{name}.hdf5", 2)
    (tmp_path / "a.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes()[:3000])
    (tmp_path / "b.hdf5").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert outcome(tmp_path) == ["truncated", "lfs_pointer", "ok", "ok"]
    assert "not fully written or copied" in details(tmp_path)


@pytest.mark.parametrize(("content", "reason"), [(b"", "not_hdf5"), (b"text" * 1000, "not_hdf5")])
def test_a_file_that_is_not_hdf5_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.hdf5").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.hdf5: not an HDF5 file") as caught:
        opener(tmp_path)
    assert caught.value.reason == reason


def test_a_file_in_which_no_group_matches_is_counted(tmp_path: Path) -> None:
    write_demos(tmp_path / "a.hdf5", 1)
    write_hdf5(tmp_path / "b.hdf5", {"other": {"x": np.zeros(3)}})
    assert outcome(tmp_path, episodes=DEMOS) == ["ok", "no_episodes"]


def test_a_file_that_changed_after_the_plan_balances(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5", 2)
    reader = opener(file)
    (ref,) = plan(reader.files())
    edit(file, lambda f: f.copy("data/demo_8", f["data"], "demo_20"))
    values = list(reader.read(ref))
    assert [(v.index, getattr(v, "reason", "ok")) for v in values] == [
        (0, "ok"),
        (1, "ok"),
        (None, "undeclared_record"),
    ]
    edit(file, lambda f: [f.__delitem__(f"data/demo_{i}") for i in (9, 20)])
    assert [(v.index, getattr(v, "reason", "ok")) for v in reader.read(ref)] == [(0, "ok"), (1, "missing_record")]


def test_damage_inside_loses_that_episode_alone(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    values = np.random.default_rng(7).normal(size=(400, 2))
    edit(file, replaced("data/demo_9/actions", None))
    edit(file, lambda f: f.create_dataset("data/demo_9/actions", data=values, compression="gzip"))
    with h5py.File(file) as opened:
        at = opened["data/demo_9/actions"].id.get_chunk_info(0).byte_offset
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"\xff" * 64)
    assert outcome(file) == ["ok", "unreadable", "ok"]
    assert str(tmp_path) not in details(file)


def test_whatever_bytes_are_wrong_the_outcome_is_counted_or_one_clear_error(tmp_path: Path) -> None:
    whole = write_demos(tmp_path / "whole.hdf5").read_bytes()
    rng = np.random.default_rng(0)
    outcomes: set[str] = set()
    refused: list[str] = []
    for _ in range(150):
        data = bytearray(whole)
        for at, value in zip(rng.integers(0, len(data), 20), rng.integers(0, 256, 20), strict=True):
            data[at] = value
        (tmp_path / "x.hdf5").write_bytes(data)
        try:
            outcomes |= set(outcome(tmp_path / "x.hdf5", episodes=DEMOS))
        except SourceError as error:
            refused.append(str(error))
    assert outcomes >= {"ok", "unreadable"}
    assert refused
    assert all(text.startswith(str(tmp_path / "x.hdf5")) for text in refused)


def test_an_error_contains_no_time_and_no_address(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").mkdir()
    write_demos(tmp_path / "b.hdf5", 1)
    assert outcome(tmp_path, episodes=DEMOS) == ["unreadable", "ok"]
    assert not re.search(r"20\d\d|0x|/", details(tmp_path, episodes=DEMOS))


def in_second(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda file: change(file["data/demo_9"])


def linked(name: str, link: Any) -> Callable[[Any], Any]:
    return in_second(lambda group: group.__setitem__(name, link))


def outside(group: Any) -> None:
    group.create_dataset("outside", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual(group: Any) -> None:
    sources = h5py.VirtualLayout((4,), "f4")
    sources[:] = h5py.VirtualSource("other.h5", "x", (4,))
    group.create_virtual_dataset("virtual", sources)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (linked("other", h5py.ExternalLink("/etc/passwd", "/")), "a link into another file"),
        (linked("here", h5py.SoftLink("/data/demo_9")), "leads back to a group"),
        (linked("up", h5py.SoftLink("/data")), "leads back to a group"),
        (linked("itself", h5py.SoftLink("itself")), "soft link to nothing, or to another link"),
        (linked("nothing", h5py.SoftLink("/nothing")), "soft link to nothing"),
        (in_second(lambda group: group.__setitem__("hard", group)), "leads back to a group"),
    ],
)
def test_links_that_leave_the_file_or_loop_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    edit(file, change)
    assert outcome(file, episodes=DEMOS) == ["ok", "unsafe_link", "ok"]
    assert words in details(file, episodes=DEMOS)


@pytest.mark.parametrize("change", [outside, virtual])
def test_a_dataset_that_keeps_its_values_in_another_file_is_refused(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    file = write_demos(tmp_path / "x.hdf5", 1)
    edit(file, lambda f: change(f["data/demo_8"]))
    with pytest.raises(SourceError, match="stores its values in other files: refused") as caught:
        opened(file, episodes=DEMOS)
    assert caught.value.reason == "unsafe_link"


def test_a_soft_link_to_data_of_the_same_file_is_followed(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5", 1)
    edit(file, lambda f: f["data/demo_8"].__setitem__("same", h5py.SoftLink("/data/demo_8/actions")))
    (episode,) = episodes(file)
    assert np.array_equal(np.asarray(episode.steps["same"]), np.asarray(episode.steps["actions"]))


@pytest.mark.parametrize(
    "values",
    [
        np.void(b"\x80\x04pickled"),
        np.zeros(4, [("a", "f4")]),
        np.zeros(4, complex),
        np.array([[b"a"]] * 4),
    ],
)
def test_what_may_be_a_pickle_or_has_no_column_is_refused_at_once(tmp_path: Path, values: Any) -> None:
    file = write_demos(tmp_path / "x.hdf5", 1, odd=values)
    with pytest.raises(SourceError, match=r"odd contains .*source\.ignore = \['odd'\]") as caught:
        opener(file)
    assert caught.value.reason == "unsupported_field"
    assert len(episodes(file, ignore=["odd"])) == 1


def test_references_are_refused(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5", 1)
    edit(file, lambda f: f["data/demo_8"].create_dataset("ref", (4,), h5py.ref_dtype))
    with pytest.raises(SourceError, match="ref contains references"):
        opener(file)


def test_what_would_inflate_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    size = {"shape": (1 << 40, 2), "dtype": "f8", "chunks": (1024, 2)}
    edit(file, replaced("data/demo_9/actions", None))
    edit(file, lambda f: f.create_dataset("data/demo_9/actions", compression="gzip", **size))
    assert file.stat().st_size < 1 << 20
    assert outcome(file) == ["ok", "too_large", "ok"]


def test_a_crowd_of_groups_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.readers.hdf5 import tree

    monkeypatch.setattr(tree, "MAX_NODES", 3)
    with pytest.raises(SourceError, match="more than 3 groups and datasets"):
        opener(write_demos(tmp_path / "x.hdf5"))


# --- declarations and commands ---


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('{ format = "hdf5" }', "source.*episodes: is required"),
        ('{ episodes = "/" }', "source: unknown key 'episodes'"),
        ('{ format = "hdf5", episodes = "/", images = "gif" }', "source.images"),
        ('{ format = "hdf5", episodes = "/", images = "jpeg 101" }', "source.images"),
    ],
)
def test_a_wrong_declaration_says_so(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        catalog.dataset(str(declare(tmp_path, source)))


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no HDF5 file here"):
        opener(tmp_path)


def test_inspect_convert_append_and_verify_work_on_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_demos(source / "task_1.hdf5", 2)
    spec = declare(tmp_path, '{ format = "hdf5", uri = "source", episodes = "data/demo_*" }')
    found = oxe("inspect", source, "--json").json()
    assert (found["format"], found["episodes"], found["steps"]) == ("hdf5", 2, 8)
    assert found["source"]["episodes_at"] == "data/demo_*"
    assert found["features"]["obs.agentview_image"]["encoding"] == "png"
    assert "source.episodes was guessed: 'data/demo_*'" in oxe("inspect", source / "task_1.hdf5").out
    assert oxe("datasets", "check", spec).code == 0
    assert oxe("convert", spec, "--out", tmp_path / "out").code == 0
    write_demos(source / "task_2.hdf5", 1)
    assert oxe("convert", spec, "--out", tmp_path / "out", "--append", "--workers", "2").code == 0
    done = oxe("verify", tmp_path / "out")
    assert (done.code, "source compared" in done.out) == (0, True)
    dataset = open_dataset(tmp_path / "out")
    assert [dataset.episode(i).id for i in range(3)] == [f"task_1.hdf5/data/demo_{i}" for i in (8, 9)] + [
        "task_2.hdf5/data/demo_8"
    ]
    assert oxe("export", "rlds", tmp_path / "out", "--out", tmp_path / "rlds/1.0.0").code == 0
    assert oxe("convert", tmp_path / "rlds/1.0.0", "--out", tmp_path / "again").code == 0
    again = open_dataset(tmp_path / "again")
    assert [again.episode(i).content_hash() for i in range(3)] == [dataset.episode(i).content_hash() for i in range(3)]
    stored = dataset.episode(2).images["agentview_image"]
    assert np.array_equal([decoded(image) for image in stored], make_demo(0)["obs/agentview_image"])


def test_verify_notices_a_number_that_changed(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "x.hdf5")
    converted(tmp_path, file, '{ format = "hdf5", episodes = "data/demo_*" }')
    edit(file, lambda f: f["data/demo_9/actions"].__setitem__((0, 0), 9.0))
    first = verify(open_dataset(tmp_path / "out"), source=str(file)).first
    assert any("action: [0, 0]" in line for line in first)


def test_without_h5py_the_extra_is_named(tmp_path: Path) -> None:
    write_demos(tmp_path / "x.hdf5")
    code = f"""
import sys
sys.modules["h5py"] = None
from oxe_tools.cli.main import main
main(["inspect", {str(tmp_path)!r}])
"""
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'oxe-tools[hdf5]'" in done.stderr
    assert "Traceback" not in done.stderr
