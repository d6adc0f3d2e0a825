"""`meta/stats.json`: read again, equal in any order, and never used for another content."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.statistics.cache import read_cache, store
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from schemas.errors import StatsError
from schemas.store.dataset import open_dataset
from stats.record import FORMAT
from tests.pipelines.counted import LENGTHS, make_counted
from tests.pipelines.toy import oxe


def test_a_conversion_brings_those_of_what_is_stored(tmp_path: Path) -> None:
    dataset = open_dataset(make_counted(tmp_path).out)
    (found,) = read_cache(dataset)
    assert found.to_json() == statistics(dataset, recompute=True).to_json()
    assert (found.view, found.split, found.filters, found.steps) == (None, None, None, sum(LENGTHS))


def test_they_are_kept_and_found_again(tmp_path: Path) -> None:
    dataset = open_dataset(make_counted(tmp_path).out)
    first = statistics(dataset, selection=Selection(view="late"))
    before = (dataset.path / "meta/stats.json").stat().st_mtime_ns
    again = statistics(open_dataset(dataset.path), selection=Selection(view="late"))
    assert again.to_json() == first.to_json()
    assert (dataset.path / "meta/stats.json").stat().st_mtime_ns == before


def test_the_file_is_the_same_in_whatever_order_they_were_asked_for(tmp_path: Path) -> None:
    dataset = open_dataset(make_counted(tmp_path).out)
    selections = [Selection(), Selection(view="late"), Selection(split="val", filters="length > 2"), Selection(chunk=2)]
    written = []
    for order in (selections, selections[::-1]):
        for selection in order:
            statistics(dataset, selection=selection)
        written.append((dataset.path / "meta/stats.json").read_bytes())
        (dataset.path / "meta/stats.json").unlink()
    assert written[0] == written[1]
    assert len(json.loads(written[0])["statistics"]) == 4


def test_conditions_that_are_spelled_differently_are_the_same(tmp_path: Path) -> None:
    dataset = open_dataset(make_counted(tmp_path).out)
    for text in ("length>=7", "length  >= 7", "(length >= 7)"):
        statistics(dataset, selection=Selection(filters=text))
    assert [found.filters for found in read_cache(dataset)] == [None, "length >= 7"]


def test_those_of_an_earlier_content_are_not_used_and_go(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    old = statistics(open_dataset(toy.out))
    path = toy.out / "meta/stats.json"
    stale = path.read_bytes()
    toy.spec.write_text(toy.spec.read_text().replace("control_hz = 10", "control_hz = 20"))
    assert toy.convert("--overwrite").code == 0
    assert path.read_bytes() != stale
    path.write_bytes(stale)
    assert toy.verify().code == 1
    assert "meta/stats.json" in toy.verify().err
    new = statistics(open_dataset(toy.out))
    assert new.members[0].manifest != old.members[0].manifest
    assert len(read_cache(open_dataset(toy.out))) == 1
    assert toy.verify().code == 0


def test_those_from_before_views_had_versions_are_named_with_what_to_run_and_go(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    new = statistics(open_dataset(toy.out), selection=Selection(view="late"))
    path = toy.out / "meta/stats.json"
    whole = path.read_bytes()
    old = [
        replace(found, members=(replace(found.members[0], view_digest="0" * 64),)) if found.view else found
        for found in (*read_cache(open_dataset(toy.out)), replace(new, split="val"))
    ]
    path.write_text(json.dumps({"format": FORMAT, "statistics": [found.to_json() for found in old]}))
    verified = toy.verify()
    assert verified.code == 1
    assert (
        "meta/stats.json: a record of the view 'late' was made before views had versions and cannot be checked: "
        f"run 'oxe stats {toy.out} --view late'\n"
    ) in verified.err
    assert oxe("stats", toy.out, "--view", "late").code == 0
    assert path.read_bytes() == whole
    assert toy.verify().code == 0


def test_a_damaged_file_of_statistics_is_found_and_counted_again(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    path = toy.out / "meta/stats.json"
    whole = path.read_bytes()
    for damage in ("{", "[]", whole.decode().replace('"steps": 341', '"steps": 342')):
        path.write_text(damage)
        with pytest.raises(StatsError, match=r"meta/stats.json: .*(cannot be read|does not match its digest)"):
            read_cache(open_dataset(toy.out))
        assert toy.verify().code == 1
        assert toy.convert().code == 0  # a finished conversion
        assert path.read_bytes() == whole


def test_statistics_of_what_was_replaced_meanwhile_are_not_kept(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    before = open_dataset(toy.out)
    toy.spec.write_text(toy.spec.read_text().replace("control_hz = 10", "control_hz = 20"))
    assert toy.convert("--overwrite").code == 0
    new = (toy.out / "meta/stats.json").read_bytes()
    store(before, read_cache(open_dataset(toy.out))[0])
    assert (toy.out / "meta/stats.json").read_bytes() == new


def test_a_dataset_that_cannot_be_written_has_statistics_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_counted(tmp_path)
    (toy.out / "meta/stats.json").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)  # the mode of a folder does not stop root
    assert statistics(open_dataset(toy.out)).steps == sum(LENGTHS)
    assert not (toy.out / "meta/stats.json").exists()
