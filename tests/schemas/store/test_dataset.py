import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.convert.binding import Binding, bind
from pipelines.convert.convert import convert
from pipelines.convert.records import Options
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.episode import Episode
from schemas.errors import DatasetError, UsageError, ViewError
from schemas.source import RawEpisode
from schemas.store.dataset import Dataset, open_dataset
from tests.schemas.makers import TOY, equal_columns, load, publish, toy_fields, toy_values, write_source

LENGTHS = (5, 130, 3)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("store"), lengths=LENGTHS, materialize=("openvla",))


@pytest.fixture(scope="module")
def ds(out: Path) -> Dataset:
    return open_dataset(out)


def from_source(source: Path, text: str = TOY) -> Iterator[Episode]:
    """Standardize the source's episodes without storing them."""
    reader = open_source(str(source))
    binding: Binding = bind(load(text), reader.fields)
    for ref in plan(reader.files(), split=None, limit=None):
        for raw in reader.read(ref, binding.columns):
            assert isinstance(raw, RawEpisode)
            yield binding.episode(raw)


def assert_equal(stored: Episode, expected: Episode) -> None:
    """Compare every field and every bit."""
    for name in Episode.__dataclass_fields__:
        one, other = getattr(stored, name), getattr(expected, name)
        if isinstance(other, np.ndarray):
            assert equal_columns(one, other), name
        elif name in {"images", "depth", "raw"}:
            assert one.keys() == other.keys()
            assert all(equal_columns(one[key], other[key]) for key in other), name
        else:
            assert one == other, name


def test_a_dataset_counts_its_episodes_and_steps(ds: Dataset) -> None:
    assert len(ds) == 3
    assert [len(episode) for episode in ds] == list(LENGTHS)
    assert repr(ds) == f"Dataset({str(ds.path)!r}: toy, 3 episodes, 138 steps)"


@pytest.mark.parametrize("i", range(3))
def test_a_stored_episode_is_what_the_declaration_makes_of_the_source(ds: Dataset, i: int) -> None:
    expected = list(from_source(ds.path.parent / "source"))[i]
    assert_equal(ds.episode(i), expected)
    assert ds.episode(i).content_hash() == expected.content_hash() == ds._table["content_hash"][i].as_py()


def test_a_stored_episode_holds_what_the_source_was_made_of(ds: Dataset) -> None:
    values, episode = toy_values(130, seed=1), ds.episode(1)
    for path in ("action", "torque", "points", "note", "observation.state"):
        assert equal_columns(episode.raw[path], values[path]), path
    assert equal_columns(episode.images["image"], values["observation.image"])
    assert equal_columns(episode.images["wrist"], [frame or None for frame in values["observation.wrist"]])  # type: ignore[union-attr]
    assert equal_columns(episode.depth["depth"], values["observation.depth"])
    assert episode.instructions == ("open it", "close it")
    assert episode.instruction_index is not None
    assert episode.instruction_index.tolist() == [0] * 65 + [1] * 65
    assert episode.metadata["episode_metadata.file_path"] == "/lab/1"
    assert episode.metadata["episode_metadata.weight"] == np.float32(0.1)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), data=st.data())
def test_hashes_are_equal_after_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("round")
    fields = [field for field in toy_fields() if not field.path.startswith("is_") or data.draw(st.booleans())]
    episodes = [toy_values(steps, seed=seed) for seed, steps in enumerate(lengths)]
    write_source(folder / "source", fields, episodes)
    text = (
        TOY
        if data.draw(st.booleans())
        else TOY.replace("control_hz = 5", "").replace('language   = "', 'id = "episode_metadata.file_path" #')
    )
    convert(load(text), folder / "out", source=str(folder / "source"))
    for stored, expected in zip(open_dataset(folder / "out"), from_source(folder / "source", text), strict=True):
        assert_equal(stored, expected)
        assert stored.content_hash() == expected.content_hash()


# Frames


def test_a_frame_is_found_by_the_name_and_by_the_role_of_its_camera(ds: Dataset) -> None:
    for i, steps in enumerate(LENGTHS):
        values = toy_values(steps, seed=i)
        for step in range(steps):
            primary = values["observation.image"][step]  # type: ignore[index]
            wrist = values["observation.wrist"][step] or None  # type: ignore[index]
            assert ds.frame(i, step) == {"image": primary, "wrist": wrist}
            assert ds.frame(i, step, ["primary"]) == {"primary": primary}
            assert ds.frame(i, step, ["wrist", "depth"]) == {
                "wrist": wrist,
                "depth": values["observation.depth"][step],  # type: ignore[index]
            }


def test_cameras_are_the_colour_cameras(ds: Dataset) -> None:
    assert ds.cameras == ("image", "wrist")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ds: ds.episode(3), "no episode 3 (there are 3, counted from 0)"),
        (lambda ds: ds.episode(-1), "no episode -1 (there are 3, counted from 0)"),
        (lambda ds: ds.frame(3, 0), "no episode 3 (there are 3, counted from 0)"),
        (lambda ds: ds.frame(0, 5), "episode 0 has no step 5 (it has 5, counted from 0)"),
        (lambda ds: ds.frame(0, -1), "episode 0 has no step -1 (it has 5, counted from 0)"),
        (
            lambda ds: ds.frame(0, 0, ["wirst"]),
            "no camera 'wirst'; did you mean 'wrist'? (known: depth, image, primary, wrist)",
        ),
    ],
)
def test_what_is_not_there_is_said_so(ds: Dataset, call: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        call(ds)
    assert str(error.value) == f"{ds.path}: {message}"


# Views and tables


def test_a_view_gives_its_own_action_without_the_steps_it_masks(ds: Dataset) -> None:
    assert ds.views == ("eef_delta", "openvla")
    stored, viewed = ds.episode(0), ds.episode(0, "openvla")
    assert stored.state is not None
    np.testing.assert_array_equal(viewed.action[:, :6], np.diff(stored.state[1:, :6], axis=0))
    assert viewed.action_space.origin == "achieved"
    assert viewed.images["image"] == stored.images["image"][1:-1]
    assert len(viewed) == 3
    assert ds.view("openvla") is ds.view("openvla")


def test_a_materialized_view_is_a_column_with_nulls_where_steps_are_masked(ds: Dataset, out: Path) -> None:
    column = pq.read_table(out / "data")["action.openvla"].to_pylist()[: LENGTHS[0]]
    assert [row is None for row in column] == [True, False, False, False, True]
    np.testing.assert_array_equal(np.float32(column[1:-1]), ds.episode(0, "openvla").action)


def test_an_unknown_view_gets_the_closest(ds: Dataset) -> None:
    with pytest.raises(ViewError, match=r"toy has no view 'openvl'; did you mean 'openvla'\?"):
        ds.episode(0, "openvl")


def test_the_episode_table_can_be_filtered(ds: Dataset) -> None:
    long = ds.episodes.filter(pl.col("length") > 4).select("id", "length", "row", "instructions").collect()
    assert long.to_dicts() == [
        {"id": "toy-000000", "length": 5, "row": 0, "instructions": ["open it", "close it"]},
        {"id": "toy-000001", "length": 130, "row": 5, "instructions": ["open it", "close it"]},
    ]


def test_the_manifest_balances_and_holds_the_declaration(ds: Dataset) -> None:
    assert ds.manifest["balance"] == {"source": 3, "kept": 3, "dropped": {}, "quarantined": {}}
    assert ds.manifest["steps"] == sum(LENGTHS)
    assert ds.spec == load()
    assert ds.manifest["spec_digest"] == load().digest()


def test_a_dataset_without_images_opens_too(tmp_path: Path) -> None:
    fields = [field for field in toy_fields() if field.kind != "image"]
    write_source(tmp_path / "source", fields, [toy_values(4, seed=0)])
    text = TOY.replace('[cameras]\nprimary = "observation.image"\n', "")
    convert(load(text), tmp_path / "out", source=str(tmp_path / "source"))
    opened = open_dataset(tmp_path / "out")
    assert opened.cameras == ()
    assert opened.frame(0, 0) == {}
    assert len(opened.episode(0)) == 4


def test_a_dataset_without_any_kept_episode_opens_too(tmp_path: Path) -> None:
    write_source(tmp_path / "source", toy_fields(), [toy_values(2, seed=0)])
    convert(load(), tmp_path / "out", source=str(tmp_path / "source"), options=Options(limit=0))
    opened = open_dataset(tmp_path / "out")
    assert list(opened) == []
    with pytest.raises(UsageError, match=r"no episode 0 \(there are 0"):
        opened.episode(0)


# Damage


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(out, tmp_path / "copy"))


def only(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "meta/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path) -> str:
    with pytest.raises(DatasetError) as error:
        open_dataset(folder).episode(0)
    return str(error.value)


def test_without_a_manifest_it_is_no_dataset(copy: Path) -> None:
    (copy / "meta/manifest.json").unlink()
    assert refused(copy) == f"{copy}: no meta/manifest.json: not a dataset, or its conversion did not finish"


@pytest.mark.parametrize("version", [0, 99, None])
def test_another_schema_version_is_refused_with_what_to_do(copy: Path, version: int | None) -> None:
    change_manifest(copy, schema_version=version)
    name = copy / "meta/manifest.json"
    assert refused(copy) == f"{name}: has schema version {version}, expected 2 or 3; convert the dataset again"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_broken_manifest_is_named(copy: Path, content: bytes) -> None:
    (copy / "meta/manifest.json").write_bytes(content)
    assert refused(copy).startswith(f"{copy}/meta/manifest.json: cannot be read (")


@pytest.mark.parametrize("content", ["[]", "3", "{}"])
def test_other_json_is_no_manifest(copy: Path, content: str) -> None:
    (copy / "meta/manifest.json").write_text(content)
    assert "schema version None" in refused(copy)


def test_a_missing_data_file_is_named(copy: Path) -> None:
    path = only(copy / "data")
    path.unlink()
    assert refused(copy).startswith(f"{path}: cannot be read (")
    assert refused(copy).endswith(
        "; run 'oxe verify' to find all damaged files; restore them from a copy, or repair them with the same "
        "'oxe convert'"
    )


def test_an_empty_data_file_is_named(copy: Path) -> None:
    path = only(copy / "data")
    path.write_bytes(b"")
    assert refused(copy).startswith(f"{path}: cannot be read (")


def test_a_cut_data_file_is_named(copy: Path) -> None:
    path = only(copy / "data")
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(copy).startswith(f"{path}: cannot be read (")


def test_a_missing_index_is_named(copy: Path) -> None:
    path = only(copy / "index")
    path.unlink()
    assert refused(copy).startswith(f"{path}: cannot be read (")


@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_a_broken_episode_table_is_named(copy: Path, content: bytes | None) -> None:
    path = copy / "meta/episodes.parquet"
    path.unlink() if content is None else path.write_bytes(content)
    why = "cannot be read (" if content is None else "damaged (its digest is not that of the manifest)"
    assert refused(copy).startswith(f"{path}: {why}")


# Other libraries open the same files


def images_of(steps: int, seed: int) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data))) for data in toy_values(steps, seed=seed)["observation.image"]]  # type: ignore[arg-type,union-attr]


def expected_steps(ds: Dataset) -> dict[str, np.ndarray]:
    episodes = list(ds)
    return {
        "action": np.concatenate([episode.action for episode in episodes]),
        "raw.torque": np.concatenate([np.asarray(episode.raw["torque"]) for episode in episodes]),
        "timestamp": np.concatenate([np.arange(steps) / 5 for steps in LENGTHS]),
        "episode_index": np.repeat(np.arange(3), LENGTHS),
    }


TEXTS = [text for steps in LENGTHS for text in ["open it"] * (steps // 2) + ["close it"] * (steps - steps // 2)]


def test_datasets_opens_the_files_with_images_decoded(
    ds: Dataset, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    for module in (datasets.config,):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(module, "HF_DATASETS_OFFLINE", True, raising=False)
    opened = datasets.load_dataset(
        "parquet", data_files=str(out / "data" / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert opened.num_rows == sum(LENGTHS)
    frame = opened[1]["observation.images.image"]
    assert isinstance(frame, Image.Image)
    assert frame.size == (24, 16)
    np.testing.assert_array_equal(np.asarray(frame), images_of(5, 0)[1])
    assert opened[2]["observation.images.wrist"] is None
    assert opened[0]["observation.depth.depth"].mode in {"I;16", "I"}
    assert opened[:]["instruction"] == TEXTS
    numbers = opened.select_columns([*expected_steps(ds)])[:]
    for name, expected in expected_steps(ds).items():
        np.testing.assert_array_equal(np.array(numbers[name], expected.dtype), expected)


def test_datasets_streams_the_files_with_images_decoded(out: Path) -> None:
    import datasets

    stream = datasets.load_dataset("parquet", data_files=str(out / "data" / "*.parquet"), split="train", streaming=True)
    row = next(iter(stream))
    assert row["observation.images.image"].size == (24, 16)
    assert row["instruction"] == "open it"


def test_polars_opens_the_files(ds: Dataset, out: Path) -> None:
    frame = pl.read_parquet(out / "data" / "*.parquet")
    assert frame["instruction"].cast(pl.String).to_list() == TEXTS
    images = frame["observation.images.image"].struct.field("bytes").to_list()
    assert images == [data for i, n in enumerate(LENGTHS) for data in toy_values(n, seed=i)["observation.image"]]  # type: ignore[union-attr]
    assert frame["observation.images.wrist"].to_list()[2] is None
    for name, expected in expected_steps(ds).items():
        np.testing.assert_array_equal(np.array(frame[name].to_list(), expected.dtype), expected)


def test_duckdb_opens_the_files(ds: Dataset, out: Path) -> None:
    columns = ", ".join(f'"{name}"' for name in expected_steps(ds))
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"""select instruction, "observation.images.image".bytes, {columns} from '{out}/data/*.parquet'
            order by episode_index, step_index"""  # noqa: S608 - a folder of the test
        ).fetchall()
        [count] = connection.execute(
            f"""select count(*) from '{out}/data/*.parquet' where "observation.images.wrist".bytes is null"""  # noqa: S608
        ).fetchall()[0]
    assert [row[0] for row in rows] == TEXTS
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rows[0][1]))), images_of(5, 0)[0])
    assert count == sum(steps // 3 for steps in LENGTHS)
    for number, (_, expected) in enumerate(expected_steps(ds).items(), 2):
        np.testing.assert_array_equal(np.array([row[number] for row in rows], expected.dtype), expected)
