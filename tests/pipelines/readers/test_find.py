"""Folders with several sources, which are listed so that one can be named."""

from pathlib import Path

import pytest

from pipelines.readers import find
from pipelines.readers.find import SourceLocation, find_sources
from pipelines.readers.registry import open_source
from schemas.declarations.formats import Hdf5Source
from schemas.errors import UsageError
from tests.pipelines.toy import columns, oxe, write_source, write_spec


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Put two RLDS versions and a folder of HDF5 files into one folder."""
    for version in ("1.0.0", "1.1.0"):
        write_source(tmp_path / "shelf/toy" / version, [columns(0)])
    for name in ("a.hdf5", "b.hdf5"):
        (tmp_path / "shelf/deep/er" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shelf/deep/er" / name).touch()
    (tmp_path / "shelf/.git").mkdir()
    (tmp_path / "shelf/.git/x.hdf5").touch()
    (tmp_path / "shelf/notes.txt").touch()
    return tmp_path / "shelf"


def test_all_sources_below_a_folder_are_found_sorted_and_hidden_ones_are_not(shelf: Path) -> None:
    assert find_sources(str(shelf)) == (
        SourceLocation("hdf5", str(shelf / "deep/er")),
        SourceLocation("rlds", str(shelf / "toy/1.0.0")),
        SourceLocation("rlds", str(shelf / "toy/1.1.0")),
    )


def test_a_file_is_a_source_by_its_ending(shelf: Path) -> None:
    assert find_sources(str(shelf / "deep/er/a.hdf5")) == (SourceLocation("hdf5", str(shelf / "deep/er/a.hdf5")),)


def test_it_looks_three_levels_down_and_into_so_many_folders(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf / "deep/er/a.hdf5").rename(shelf / "notes.hdf")
    assert [found.uri for found in find_sources(str(shelf))] == [str(shelf)]
    (shelf / "notes.hdf").unlink()
    write_source(shelf / "1/2/3/4", [columns(0)])
    assert not [found for found in find_sources(str(shelf)) if found.uri.endswith("4")]
    monkeypatch.setattr(find, "MAX_FOLDERS", 3)
    with pytest.raises(UsageError, match="more than 3 folders to search; name one further down"):
        find_sources(str(shelf))


def test_loose_files_are_a_source_only_where_there_is_no_other(shelf: Path) -> None:
    (shelf / "files.csv").touch()
    (shelf / "toy/1.0.0/episode_1").mkdir()
    (shelf / "about").mkdir()
    (shelf / "about/files.csv").touch()
    assert len(find_sources(str(shelf))) == 3
    for i in range(2):
        (shelf / f"monday/episode_{i}").mkdir(parents=True)
    assert SourceLocation("folder", str(shelf / "monday")) in find_sources(str(shelf))
    assert len(find_sources(str(shelf))) == 4
    for i in range(400):  # more than are searched
        (shelf / f"loose/episode_{i}").mkdir(parents=True)
    assert find_sources(str(shelf / "loose")) == (SourceLocation("folder", str(shelf / "loose")),)


def test_a_folder_of_bags_is_one_source_unless_it_has_other_sources(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        (tmp_path / "bags" / name).mkdir(parents=True)
        (tmp_path / "bags" / name / "metadata.yaml").touch()
    assert find_sources(str(tmp_path / "bags")) == (SourceLocation("rosbag", str(tmp_path / "bags")),)
    write_source(tmp_path / "bags/toy", [columns(0)])
    assert [(found.format, Path(found.uri).name) for found in find_sources(str(tmp_path / "bags"))] == [
        ("rosbag", "monday"),
        ("rlds", "toy"),
        ("rosbag", "tuesday"),
    ]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").symlink_to(tmp_path)
    assert find_sources(str(tmp_path)) == ()


def test_inspect_lists_them_and_says_to_name_one(shelf: Path) -> None:
    done = oxe("inspect", shelf)
    assert (done.code, done.err) == (0, "")
    assert f"3 sources; inspect one of them, for example: oxe inspect {shelf}/deep/er" in done.out
    listed = oxe("inspect", shelf, "--json").json()["sources"]
    assert [row["format"] for row in listed] == ["hdf5", "rlds", "rlds"]


def test_convert_and_draft_name_them(shelf: Path) -> None:
    spec = write_spec(shelf.parent)
    for call in (
        ["convert", spec, "--source", shelf, "--out", shelf.parent / "out"],
        ["inspect", shelf, "--draft", "-"],
    ):
        done = oxe(*call)
        assert done.code == 2
        assert "holds several sources, name one: " in done.err
        assert "1.0.0 (rlds)" in done.err


def test_a_single_one_further_down_is_opened_where_nothing_is_declared(shelf: Path) -> None:
    assert open_source(str(shelf.parent / "shelf/toy/1.0.0")).format == "rlds"
    (shelf / "toy/1.1.0").rename(shelf.parent / "away")
    done = oxe("inspect", shelf / "toy", "--json")
    assert done.json()["episodes"] == 1
    assert done.err == f"{shelf / 'toy'}: reading its only source, {shelf / 'toy/1.0.0'}\n"


def test_a_wrong_declared_format_or_folder_says_what_is_there(shelf: Path) -> None:
    told = Hdf5Source(format="hdf5", episodes="/")
    with pytest.raises(
        UsageError, match=r"is not a source itself, but contains one; use its path instead: .*/deep/er \(hdf5\)"
    ):
        open_source(str(shelf / "deep"), told)
    with pytest.raises(UsageError, match="it looks like rlds"):
        open_source(str(shelf / "toy/1.0.0"), told)


def test_convert_of_a_folder_without_a_declaration_says_what_is_there(shelf: Path) -> None:
    done = oxe("convert", shelf, "--out", shelf.parent / "out")
    assert (done.code, "holds several sources, name one: " in done.err) == (2, True)
    one = oxe("convert", shelf / "deep", "--out", shelf.parent / "out")
    assert f"to draft one, run: oxe inspect {shelf}/deep/er --draft my_dataset.toml" in one.err
    assert "to draft one" not in oxe("convert", "no_such_name", "--out", shelf.parent / "out").err


def test_a_pattern_may_lead_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set/meta").mkdir(parents=True)
    (tmp_path / "set/meta/info.json").touch()
    assert find_sources(str(tmp_path), {"lerobot": ["meta/info.json"]}) == (
        SourceLocation("lerobot", str(tmp_path / "set")),
    )
    assert find_sources(str(tmp_path), {"other": ["*/meta/info.json"]}) == (SourceLocation("other", str(tmp_path)),)
