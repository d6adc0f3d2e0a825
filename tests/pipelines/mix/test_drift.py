"""Drift lists exactly what has changed since the lock."""

from pathlib import Path

import pytest

from pipelines.mix.drift import drift, lock_differences
from schemas.mixture.lock import Lock
from tests.pipelines.mix.lab import again, made, make_datasets, mix


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return make_datasets(tmp_path)


@pytest.fixture
def lock(lab: Path) -> Lock:
    return made(lab, 'view = "late"')[0]


@pytest.mark.parametrize("deep", [False, True])
def test_nothing_has_changed_right_after_the_lock(lab: Path, lock: Lock, *, deep: bool) -> None:
    assert drift(lock, beside=lab, spec=mix('view = "late"'), deep=deep) == []


def test_another_dataset_in_its_place_is_named(lab: Path, lock: Lock) -> None:
    again(lab, "two", seed=99)
    assert drift(lock, beside=lab) == ["two: the dataset has changed: it now has 1 episodes and 4 steps"]


def test_a_dataset_or_file_that_is_gone_is_named(lab: Path, lock: Lock) -> None:
    (file,) = (lab / "one/data").iterdir()
    file.unlink()
    (lab / "two").rename(lab / "elsewhere")
    found = drift(lock, beside=lab)
    assert found[0] == f"one: data/{file.name} is missing"
    assert found[1].startswith("two: ")
    assert "no meta/manifest.json" in found[1]


def test_one_byte_of_a_file_is_noticed_by_a_deep_look(lab: Path, lock: Lock) -> None:
    (file,) = (lab / "one/data").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert drift(lock, beside=lab) == []
    assert drift(lock, beside=lab, deep=True) == [f"one: data/{file.name} has changed"]


def test_an_edited_mixture_is_named_with_its_keys(lab: Path, lock: Lock) -> None:
    found = drift(lock, beside=lab, spec=mix('view = "late"\nfilter = "length > 3"', weights="one = 1.0\ntwo = 2.0"))
    assert found == ["the mixture file has changed: filter, weights"]


@pytest.mark.parametrize("deep", [False, True])
def test_paraphrases_are_part_of_what_is_compared(lab: Path, *, deep: bool) -> None:
    table = '[paraphrases]\n"task 0 ☂" = ["do 0"]'
    lock, _ = made(lab, tables=table)
    assert drift(lock, beside=lab, spec=mix(tables=table), deep=deep) == []
    result = drift(lock, beside=lab, spec=mix(tables=table.replace("do 0", "0")))
    assert result == ["the mixture file has changed: paraphrases"]
    assert lock_differences(lock, made(lab)[0]) == ["the mixture file differs in paraphrases"]


def test_another_code_of_the_view_is_named(lab: Path, lock: Lock) -> None:
    sources = {"one": lock.sources["one"].model_copy(update={"view_digest": "2-" + "0" * 64})}
    found = drift(lock.model_copy(update={"sources": sources}), beside=lab)
    assert found == ["one: the code or declaration of the view 'late' has changed"]


def test_a_lock_from_before_views_had_versions_says_once_what_to_run(lab: Path, lock: Lock) -> None:
    sources = {name: source.model_copy(update={"view_digest": "0" * 64}) for name, source in lock.sources.items()}
    old = lock.model_copy(update={"sources": sources})
    why = "the lock was made before views had versions and cannot be checked: run 'oxe mix lock' again with --overwrite"
    assert drift(old, beside=lab) == drift(old, beside=lab, deep=True) == [why]
    assert lock_differences(lock, old) == [f"the second lock: {why}"]
    assert lock_differences(old, old) == []
    assert drift(made(lab)[0], beside=lab) == []  # a lock without a view cannot have an outdated view


def test_two_locks_are_compared_in_words(lab: Path, lock: Lock) -> None:
    other, table = made(lab, 'view = "late"\nfilter = "length > 3"', weights="one = 2.0\ntwo = 1.0")
    first = made(lab, 'view = "late"')
    assert first[0].encoded() == lock.encoded()
    found = lock_differences(lock, other, tables=(first[1], table))
    assert "the mixture file differs in filter, weights" in found
    assert "one: filtered: 4 and 3 episodes" in found
    assert "1 episodes are only in the first lock" in found
    assert lock_differences(lock, lock, tables=(table, table)) == []
