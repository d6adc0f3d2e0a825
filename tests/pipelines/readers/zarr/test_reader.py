"""Zarr replay buffers, versions 2 and 3, valid and damaged; every episode is one value."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pipelines.convert.convert import convert
from pipelines.readers import reader as planning
from pipelines.readers.history import History
from pipelines.readers.reader import plan
from pipelines.readers.registry import guess, open_source
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SourceError, SpecError
from schemas.source import Array
from schemas.store.dataset import open_dataset
from tests.makers import PEAK, write_zarr
from tests.pipelines.readers.reading import ARM, Opener, Reading, decoded
from tests.pipelines.toy import oxe

zarr = pytest.importorskip("zarr", reason="the extra 'zarr'")
from pipelines.readers.zarr import arrays as zarr_arrays  # noqa: E402 - after the check

ENDS = np.array([4, 5, 9, 9, 12])
ROWS = 12
SPEC = f"""
name       = "toy"
control_hz = 10
id         = "episode_path"
{ARM}
[action]
joints = "action"
"""


def make_arrays(**more: Any) -> dict[str, Any]:
    """Make a replay buffer of five episodes, one of them empty."""
    rng = np.random.default_rng(0)
    return {
        "data/action": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "data/obs/pos": rng.normal(size=(ROWS, 3)),
        "data/img": rng.integers(0, 256, (ROWS, 6, 8, 3), np.uint8),
        "meta/episode_ends": ENDS,
        **more,
    }


def write(folder: Path, *, zarr_format: int = 2, chunks: Mapping[str, Any] | None = None, **more: Any) -> Path:
    told = {"data/action": (5, 2), "data/img": (2, 6, 8, 3), **(chunks or {})}
    return write_zarr(folder, make_arrays(**more), zarr_format=zarr_format, chunks=told)


opened = Opener("zarr")
reading = Reading(opened)
read, episodes, outcome, details = reading.read, reading.episodes, reading.outcome, reading.details


def declare(folder: Path, source: str) -> Path:
    (folder / "toy.toml").write_text(f"source = {source}\n{SPEC}")
    return folder / "toy.toml"


def refused(uri: Path, **layout: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        opened(uri, **layout)
    return caught.value


# --- layouts ---


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_episodes_are_the_rows_between_their_ends(tmp_path: Path, zarr_format: int) -> None:
    found = episodes(write(tmp_path / "x.zarr", zarr_format=zarr_format, **{"meta/task": np.arange(5) * 10}))
    made = make_arrays()
    assert [e.metadata for e in found] == [{"episode_path": f"episode_{i}", "meta.task": 10 * i} for i in range(5)]
    for episode, start, end in zip(found, [0, *ENDS], ENDS, strict=False):
        assert set(episode.steps) == {"action", "obs.pos", "img"}
        for path, name in (("action", "data/action"), ("obs.pos", "data/obs/pos")):
            column = np.asarray(episode.steps[path])
            assert column.dtype == made[name].dtype
            assert np.array_equal(column, made[name][start:end])
        frames = [decoded(image) for image in episode.steps["img"]]
        assert np.array_equal(np.reshape(frames, (-1, 6, 8, 3)), made["data/img"][start:end])


def test_a_zip_file_and_a_remote_folder_read_like_the_disk(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    wanted = [repr(e.steps) for e in episodes(store)]
    with zipfile.ZipFile(tmp_path / "x.zarr.zip", "w") as file:
        for path in store.rglob("*"):
            file.write(path, path.relative_to(store))
    assert [repr(e.steps) for e in episodes(tmp_path / "x.zarr.zip")] == wanted
    memory = fsspec.filesystem("memory")
    memory.put(str(store), "/replay/x.zarr", recursive=True)
    memory.put(str(tmp_path / "x.zarr.zip"), "/replay/x.zarr.zip")
    try:
        for uri in ("memory://replay/x.zarr", "memory://replay/x.zarr.zip"):
            assert [repr(e.steps) for e in episodes(uri)] == wanted
    finally:
        memory.rm("/replay", recursive=True)


def test_shards_and_codecs_of_both_versions_are_read(tmp_path: Path) -> None:
    from numcodecs import LZ4, LZMA, Blosc, Delta, GZip, Zlib, Zstd
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    rows = np.arange(ROWS * 3, dtype=np.int64).reshape(ROWS, 3)
    for zarr_format, codecs in (
        (2, [LZ4(), LZMA(), Blosc(), GZip(), Zlib(), Zstd()]),
        (3, [BloscCodec(), GzipCodec(), ZstdCodec()]),
    ):
        for number, codec in enumerate(codecs):
            store = write(tmp_path / f"{zarr_format}_{number}.zarr", zarr_format=zarr_format)
            group = zarr.open_group(store, mode="a")
            more = {"filters": [Delta(dtype="<i8")]} if zarr_format == 2 else {"shards": (8, 3)}
            group.create_array("data/x", shape=rows.shape, chunks=(2, 3), dtype=rows.dtype, compressors=codec, **more)[
                :
            ] = rows
            assert np.concatenate([np.asarray(e.steps["x"]) for e in episodes(store)]).tolist() == rows.tolist()


def test_several_stores_in_a_folder_are_one_source_to_which_more_can_be_added(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / "day_2.zarr")
    spec = declare(tmp_path, '{ format = "zarr", uri = "source" }')
    assert oxe("convert", spec, "--out", tmp_path / "out").code == 0
    write(source / "day_10.zarr", zarr_format=3)
    assert oxe("convert", spec, "--out", tmp_path / "out", "--append").code == 0
    assert oxe("verify", tmp_path / "out").code == 0
    dataset = open_dataset(tmp_path / "out")
    assert [dataset.episode(i).id for i in (0, 4)] == ["day_2.zarr/episode_0", "day_10.zarr/episode_0"]
    assert len(dataset) == 8


def test_the_ends_and_the_steps_may_be_elsewhere(tmp_path: Path) -> None:
    held = {"action": np.zeros((ROWS, 2)), "cam/top": np.zeros((ROWS, 4, 4, 3), np.uint8), "ends": ENDS}
    store = write_zarr(tmp_path / "x.zarr", held)
    assert "in source.episode_ends" in str(refused(store, episode_ends="meta/episode_ends"))
    assert opened(store).layout() == {"episode_ends": "ends", "steps": ""}
    reader = opened(store, episode_ends="ends", steps="")
    assert [field.path for field in reader.fields] == ["episode_path", "action", "cam.top"]
    assert reader.layout() == {"episode_ends": "ends", "steps": ""}
    assert len(episodes(store, **reader.layout())) == 5


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("chw", lambda frames: np.moveaxis(frames, -1, 1)),
        ("hwc 0..255", lambda frames: frames.astype(np.float32)),
        ("hwc 0..1", lambda frames: frames.astype(np.float32) / 255),
        ("chw 0..1", lambda frames: np.moveaxis(frames / 255, -1, 1).astype(np.float16)),
    ],
)
def test_other_layouts_of_images_are_read_as_declared_and_else_stay_numbers(
    tmp_path: Path, words: str, change: Callable[[Array], Array]
) -> None:
    frames = make_arrays()["data/img"]
    store = write(tmp_path / "x.zarr", **{"data/cam": change(frames)})
    assert {field.path: field.kind for field in opened(store).fields}["cam"] == "number"
    found = [decoded(image) for e in episodes(store, frames={"cam": words}) for image in e.steps["cam"]]
    assert np.array_equal(found, frames)


def test_declared_images_that_are_not_images_are_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"data/cam": np.full((ROWS, 6, 8, 3), 0.5, np.float32)})
    assert outcome(store, frames={"cam": "hwc 0..1"}) == ["bad_image"] * 3 + ["ok", "bad_image"]
    assert "not whole numbers in 0..255" in details(store, frames={"cam": "hwc 0..1"})
    for path, words in (("cam", "hwc"), ("action", "hwc"), ("img", "hwc 0..1"), ("img", "chw")):
        with pytest.raises(SpecError, match=rf"source\.frames: {path} is"):
            opened(store, frames={path: words})


def test_texts_are_read_per_step_and_per_episode(tmp_path: Path) -> None:
    words = np.array(["pick ☂", "", *["x"] * 10])
    store = write(tmp_path / "x.zarr", **{"data/words": words, "meta/task": np.array([b"a", b"b", b"c", b"d", b"e"])})
    found = episodes(store)
    assert [bytes(x) for e in found for x in e.steps["words"]] == [word.encode() for word in words]
    assert [e.metadata["meta.task"] for e in found] == list("abcde")


def test_texts_of_any_length_are_read(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", zarr_format=3)
    words = zarr.open_group(store, mode="a").create_array("data/words", shape=(ROWS,), chunks=(5,), dtype=str)
    words[:] = np.array([f"{'long ' * i}☂" for i in range(ROWS)], object)
    found = [bytes(x).decode() for e in episodes(store) for x in e.steps["words"]]
    assert found == [f"{'long ' * i}☂" for i in range(ROWS)]


def test_a_chunk_is_read_once_for_all_episodes_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "x.zarr", chunks={"data/obs/pos": (ROWS, 3)})
    asked: list[str] = []
    reader = opened(store)
    from pipelines.readers.zarr.store import FolderFiles

    open_key = FolderFiles.open
    monkeypatch.setattr(FolderFiles, "open", lambda self, key: asked.append(key) or open_key(self, key))
    monkeypatch.setattr(zarr_arrays, "BLOCK", 1)  # one chunk at a time
    for ref in plan(reader.files()):
        list(reader.read(ref))
    chunks = [key for key in asked if key.startswith("data/") and ".z" not in key]
    assert len(chunks) == len(set(chunks))
    assert len(chunks) == 1 + 3 + 6


def test_the_plan_may_split_a_store_and_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "x.zarr")
    whole = [repr(e.steps) for e in episodes(store)]
    monkeypatch.setattr(planning, "MIN_SHARD", 100)
    monkeypatch.setattr(planning, "MAX_SHARD", 100)
    assert len(plan(opened(store).files())) == 5
    assert [repr(e.steps) for e in episodes(store)] == whole


@pytest.mark.parametrize(
    ("name", "form"), [("x.zarr", "zarr"), ("x.zarr.zip", "zarr"), ("x.zip", "zarr"), ("x.pickle", None)]
)
def test_the_format_is_guessed_from_names(tmp_path: Path, name: str, form: str | None) -> None:
    if form:
        assert guess(str(tmp_path / name)) == (form, str(tmp_path / name))
    else:
        with pytest.raises(SourceError, match="a pickle, which is never read"):
            guess(str(tmp_path / name))


def test_a_store_is_guessed_by_its_contents(tmp_path: Path) -> None:
    write(tmp_path / "buffer", zarr_format=3)
    write(tmp_path / "many/a.zarr")
    for name in ("buffer", "many"):
        assert guess(str(tmp_path / name)) == ("zarr", str(tmp_path / name))


# --- ends and lengths ---


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (np.array([4, 3, 12]), "episode 1 ends at row 3, before it starts at 4"),
        (np.array([-1, 3, 12]), "episode 0 ends at row -1"),
        (np.array([4.0, 12.0]), "expected a list of ends"),
        (np.array([[4, 12]]), "expected a list of ends"),
    ],
)
def test_ends_that_cannot_be_are_refused(tmp_path: Path, ends: Array, words: str) -> None:
    error = refused(write(tmp_path / "x.zarr", **{"meta/episode_ends": ends}))
    assert (error.reason, words in error.message) == ("bad_ends", True)


def test_an_array_that_ends_early_loses_the_episodes_after_its_end(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"data/obs/pos": np.zeros((8, 3))})
    assert outcome(store) == ["ok", "ok", "truncated", "truncated", "truncated"]
    assert "obs.pos ends at row 8, but the episode ends at 9" in details(store)


def test_steps_after_the_last_end_are_counted(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"meta/episode_ends": ENDS[:3]})
    assert outcome(store) == ["ok", "ok", "ok", "undeclared_record"]
    assert "3 steps come after the end of the last episode" in details(store)


def test_an_empty_episode_is_dropped_and_the_balance_holds(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    report = convert(
        catalog.dataset(str(declare(tmp_path, '{ format = "zarr" }'))), tmp_path / "out", source=str(store)
    )
    assert (report.kept, report.dropped, report.quarantined) == (4, {"zero_steps": 1}, {})
    assert verify(open_dataset(tmp_path / "out"), source=str(store)).first == []


def test_what_is_neither_per_step_nor_per_episode_is_refused_until_it_is_ignored(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"meta/calibration": np.eye(3)})
    error = refused(store)
    assert "meta/calibration has 3 rows, but there are 5 episodes" in error.message
    assert len(episodes(store, ignore=["meta.calibration"])) == 5


def test_a_store_unlike_the_first_one_is_quarantined(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", **{"data/more": np.zeros(ROWS)})
    write(tmp_path / "c.zarr", **{"data/action": np.zeros((ROWS, 3), np.float32)})
    assert outcome(tmp_path) == ["ok"] * 5 + ["contradicts_fields"] * 10


def test_a_store_that_grew_after_the_plan_balances(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    reader = opened(store)
    (ref,) = plan(reader.files())
    before = History.of(reader)
    write(store, **{"meta/episode_ends": np.array([4, 5, 9, 9, 11, 12])})
    values = list(reader.read(ref))
    assert [getattr(v, "reason", "ok") for v in values] == ["ok"] * 5 + ["undeclared_record"]
    assert History.of(opened(store)).since(before).changed
    write(store, **{"meta/episode_ends": ENDS[:2]})
    reasons = [getattr(v, "reason", "ok") for v in reader.read(ref)]
    assert reasons == ["ok", "ok", "undeclared_record", *["missing_record"] * 3]


# --- damage ---


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_lost_chunk_is_noticed_and_loses_its_episodes_alone(tmp_path: Path, zarr_format: int) -> None:
    """Zarr itself returns the fill value for a missing chunk."""
    store = write(tmp_path / "x.zarr", zarr_format=zarr_format)
    (store / ("data/img/2.0.0.0" if zarr_format == 2 else "data/img/c/2/0/0/0")).unlink()  # rows 4 and 5
    assert outcome(store) == ["ok", "missing_chunk", "missing_chunk", "ok", "ok"]
    assert "source.fill = ['img']" in details(store)
    filled = episodes(store, fill=["img"])
    assert decoded(filled[1].steps["img"][0]).max() == 0
    assert opened(store, fill=["img"]).layout() == {"fill": ["img"]}


def test_missing_chunks_without_a_fill_value_are_not_filled(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    edit_json(store / "data/img/.zarray", fill_value=None)
    assert "has no fill value" in str(refused(store, fill=["img"]))


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    assert "no Zarr group here" in str(refused(tmp_path / "x.zarr"))
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert "no Zarr group here" in str(refused(tmp_path / "x.zip"))


def test_an_array_without_its_description_is_noticed(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    (store / "data/action/.zarray").unlink()
    assert "data/action is neither an array nor a group" in str(refused(store))
    (store / "README.md").write_text("a file without data")
    assert len(episodes(store, ignore=["action"])) == 5


def test_a_store_without_its_arrays_says_how_much_is_missing(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    shutil.rmtree(store / "data")
    error = refused(store)
    assert error.reason == "no_episodes"
    assert "no array below 'data', but meta/episode_ends has 5 episodes with 12 steps" in error.message


def test_damaged_chunks_and_zip_files_are_counted(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    chunk = store / "data/img/2.0.0.0"
    whole = chunk.read_bytes()
    for content in (b"", whole[:5], whole[:20], whole[:-1], whole + b"\0", b"\xff" * 100):
        chunk.write_bytes(content)
        assert outcome(store) == ["ok", *[outcome(store)[1]] * 2, "ok", "ok"]
        assert outcome(store)[1] in {"unreadable", "truncated"}
        assert "0x" not in details(store)
        assert str(tmp_path) not in details(store)
    chunk.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert outcome(store)[1] == "lfs_pointer"
    write(tmp_path / "zips" / "a.zarr")
    for name, cut in (("b.zarr.zip", 500), ("c.zarr.zip", None)):
        with zipfile.ZipFile(tmp_path / "zips" / name, "w") as file:
            for path in (tmp_path / "zips/a.zarr").rglob("*"):
                file.write(path, path.relative_to(tmp_path / "zips/a.zarr"))
        content = (tmp_path / "zips" / name).read_bytes()
        (tmp_path / "zips" / name).write_bytes(content[:cut])
    assert outcome(tmp_path / "zips") == ["ok"] * 5 + ["truncated"] + ["ok"] * 5


def test_a_wrong_byte_in_a_zip_file_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "x.zarr", make_arrays(), compressors=None)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in store.rglob("*"):
            file.write(path, path.relative_to(store))
    content = (tmp_path / "x.zip").read_bytes()
    pixels = make_arrays()["data/img"].tobytes()
    at = content.index(pixels[:100])
    (tmp_path / "x.zip").write_bytes(content[: at + 50] + b"\0\1\2" + content[at + 53 :])
    assert set(outcome(tmp_path / "x.zip")) == {"unreadable", "ok"}
    assert "Bad CRC-32" in details(tmp_path / "x.zip")


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, ""),
        ({"dtype": "<c16"}, "action contains 'complex128'"),
        ({"dtype": [["a", "<f4"]]}, "action contains"),
        ({"filters": [{"id": "pickle"}]}, "pickle"),
        ({"compressor": {"id": "imagecodecs_nothing"}}, "imagecodecs"),
        ({"compressor": {"id": "nothing"}}, "nothing"),
        ({"chunks": [1 << 40, 2]}, "bytes in a chunk; the limit is"),
        ({"shape": "many"}, "cannot be read"),
    ],
)
def test_what_may_be_a_pickle_and_what_cannot_be_true_is_refused_at_once(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    store = write(tmp_path / "x.zarr")
    edit_json(store / "data/action/.zarray", **{"fill_value": None, **changes})
    assert words in str(refused(store))


def test_an_absurd_shape_takes_no_memory(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    edit_json(store / "data/action/.zarray", shape=[1 << 50, 2])
    edit_json(store / "meta/episode_ends/.zarray", shape=[1], chunks=[1])
    (store / "meta/episode_ends/0").write_bytes(np.array([1 << 40]).tobytes())
    edit_json(store / "meta/episode_ends/.zarray", compressor=None)
    assert outcome(store) == ["too_large", "undeclared_record"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
def test_a_chunk_that_would_inflate_beyond_its_size_is_refused_before_it_does(
    tmp_path: Path, zarr_format: int, codec: str
) -> None:
    from numcodecs import Blosc, GZip, Zstd
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    packed = {"gzip": GZip(), "zstd": Zstd(), "blosc": Blosc()}[codec]
    named = packed if zarr_format == 2 else {"gzip": GzipCodec, "zstd": ZstdCodec, "blosc": BloscCodec}[codec]()
    store = write(tmp_path / "x.zarr", zarr_format=zarr_format)
    group = zarr.open_group(store, mode="a")
    group.create_array("data/x", shape=(ROWS,), chunks=(ROWS,), dtype="f8", compressors=named)[:] = 1
    bomb = packed.encode(np.zeros(1 << 26, np.uint8))
    (store / ("data/x/0" if zarr_format == 2 else "data/x/c/0")).write_bytes(bomb)
    assert outcome(store) == ["too_large"] * 3 + ["ok", "too_large"]  # the fourth is empty
    assert "would inflate beyond its" in details(store)


def test_a_second_gzip_member_is_counted_too() -> None:
    import gzip

    from pipelines.readers.zarr.codecs import check_inflated

    small, large = gzip.compress(bytes(10)), gzip.compress(bytes(1 << 20))
    check_inflated("gzip", memoryview(small + small), 20)
    with pytest.raises(SourceError, match="would inflate"):
        check_inflated("gzip", memoryview(small + large), 20)


def test_a_large_array_takes_the_memory_of_some_chunks(tmp_path: Path) -> None:
    """Two episodes with 900 MB of raw frames; only the encoded ones are kept in memory."""
    store = write_zarr(
        tmp_path / "x.zarr", {"data/action": np.zeros((600, 2)), "meta/episode_ends": np.array([300, 600])}
    )
    group = zarr.open_group(store, mode="a")
    shape = (600, 700, 700, 3)
    frames = group.create_array("data/img", shape=shape, chunks=(7, *shape[1:]), dtype="uint8")
    for start in range(0, 600, 7):
        frames[start : start + 7] = start % 250 + 1
    code = f"""
import sys
from pipelines.readers.reader import plan
from pipelines.readers.zarr.reader import ZarrReader
from schemas.declarations.formats import ZarrSource
reader = ZarrReader({str(store)!r}, ZarrSource(format="zarr", images="jpeg 90"))
before = {PEAK}
count = 0
for ref in plan(reader.files()):
    for episode in reader.read(ref):
        count += len(episode.steps["img"])
print(count, ({PEAK} - before) >> 10)
"""
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 600
    assert megabytes < 200


# --- declarations and commands ---


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('{ format = "zarr", frames = { img = "wch" } }', "source.frames.img"),
        ('{ format = "zarr", images = "gif" }', "source.images"),
        ('{ format = "zarr", groups = "x" }', "unknown key 'groups'"),
    ],
)
def test_a_wrong_declaration_says_so(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        catalog.dataset(str(declare(tmp_path, source)))


def test_without_zarr_the_extra_is_named() -> None:
    code = 'import sys; sys.modules["zarr"] = None\nfrom oxe_tools.cli.main import main\nmain(["inspect", sys.argv[1]])'
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code, "x.zarr"], capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'oxe-tools[zarr]'" in done.stderr


def test_inspect_shows_a_store(tmp_path: Path) -> None:
    found = oxe("inspect", write(tmp_path / "x.zarr"), "--json").json()
    assert (found["format"], found["episodes"], found["steps"]) == ("zarr", 5, ROWS)
    assert found["features"]["img"]["encoding"] == "png"


def test_umi_recordings_are_read_where_their_codec_is_installed(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="the package 'imagecodecs'")
    codecs.register_codecs(verbose=False)
    frames = make_arrays()["data/img"]
    store = write_zarr(tmp_path / "x.zarr", {"data/action": np.zeros((ROWS, 2)), "meta/episode_ends": ENDS})
    packed = codecs.Jpegxl(lossless=True)
    cam = zarr.open_group(store, mode="a").create_array(
        "data/camera0_rgb", shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype="uint8", compressors=packed
    )
    cam[:] = frames
    found = [decoded(image) for e in episodes(store) for image in e.steps["camera0_rgb"]]
    assert np.array_equal(found, frames)


def test_a_codec_that_is_not_installed_is_named(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    edit_json(store / "data/img/.zarray", compressor={"id": "imagecodecs_jpegxl"})
    try:
        import imagecodecs  # noqa: F401 - to see whether it is installed
    except ImportError:
        assert "data/img requires the package 'imagecodecs'" in str(refused(store))


# --- real recordings ---


@pytest.mark.realdata
def test_a_real_store_without_its_data_is_refused_with_what_it_names(realdata: Path) -> None:
    done = oxe("inspect", realdata / "zarr_malformed/guided_dp_meta_only")
    assert (done.code, done.out) == (2, "")
    assert "meta/episode_ends has 200 episodes with 9666 steps in total" in done.err


@pytest.mark.realdata
def test_a_real_pickle_is_refused(realdata: Path) -> None:
    (pickle,) = (realdata / "pickle").rglob("*.pkl")
    for place in (pickle, pickle.parent):
        done = oxe("inspect", place)
        assert (done.code, done.out) == (2, "")
        assert "a pickle, which is never read" in done.err


def test_open_source_takes_the_layout_that_the_reader_gives(tmp_path: Path) -> None:
    told = {"images": "jpeg 90", "ignore": ["obs"], "files": "*.zarr"}
    write(tmp_path / "x.zarr")
    reader = opened(tmp_path, **told)
    assert reader.layout() == told
    assert [f.path for f in open_source(str(tmp_path)).fields] != [f.path for f in reader.fields]
