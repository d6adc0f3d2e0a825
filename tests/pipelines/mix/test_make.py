"""A lock has the right counts and shares, and is the same wherever and however often it is computed."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from pipelines.mix.make import make_lock
from schemas.errors import MixtureError, SpecError, UsageError
from schemas.mixture import lock as locks
from schemas.mixture.lock import TRAIN, VALIDATION
from schemas.store.dataset import open_dataset
from stats.record import Statistics
from tests.pipelines.mix.lab import LENGTHS, made, make_datasets, mix, total
from tests.pipelines.toy import columns, make_toy
from tests.power import record, restore


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_datasets(tmp_path_factory.mktemp("lab"))


def test_episodes_and_steps_are_counted_at_each_stage(lab: Path) -> None:
    lock, table = made(lab, 'view = "late"\nfilter = "length > 3"')
    stages = {key: (stage.episodes, stage.steps) for key, stage in lock.sources["one"].stages.items()}
    assert stages == {"source": (4, 18), "filtered": (3, 15), "viewed": (3, 12), TRAIN: (3, 12), VALIDATION: (0, 0)}
    rows = [row for row in table.to_pylist() if row["source"] == "one"]
    assert [(row["position"], row["ranges"], row["steps"]) for row in rows] == [
        (1, [1, 4], 3),
        (2, [1, 5], 4),
        (3, [1, 6], 5),
    ]
    stored = open_dataset(lab / "one")
    assert [row["content_hash"] for row in rows] == [stored.content_hash(i) for i in (1, 2, 3)]


def test_relative_weights_multiply_the_steps_of_the_view(lab: Path) -> None:
    lock, _ = made(lab, 'view = "late"', weights="one = 2.0\ntwo = 1.0")
    assert lock.epoch == 2 * 14 + 28
    assert lock.sources["one"].share == pytest.approx(28 / 56)
    assert lock.sources["one"].repeats == pytest.approx(2)


def test_caps_give_what_they_take_to_the_others(lab: Path) -> None:
    lock, _ = made(lab, 'weighting = "share"', weights="one = 9\ntwo = 1", tables="[caps]\nshare = 0.6")
    assert lock.sources["one"].nominal == 0.9
    assert [source.share for source in lock.sources.values()] == [0.6, 0.4]


def test_a_balanced_source_draws_equally_from_each_instruction_as_far_as_repeats_allow(lab: Path) -> None:
    lock, _ = made(lab, 'balance = "instruction"')
    assert {part.share for part in lock.sources["one"].strata.values()} == {lock.sources["one"].share / 4}
    text = 'weighting = "share"\nbalance = "instruction"'
    capped, _ = made(lab, text, weights="one = 1", tables='[sources]\none = { uri = "one" }\n[caps]\nrepeats = 1.2')
    strata = capped.sources["one"].strata.values()
    assert max(part.repeats for part in strata) <= 1.2 + 1e-6
    assert total(part.share for part in strata) == pytest.approx(1)


def test_a_holdout_keeps_every_group_on_one_side(lab: Path) -> None:
    lock, table = made(lab, tables="[holdout]\nshare = 0.16")
    parts: dict[str, set[str]] = {}
    for row in table.to_pylist():
        parts.setdefault(row["instruction"], set()).add(row["part"])
    assert all(len(found) == 1 for found in parts.values())
    assert set().union(*parts.values()) == {TRAIN, VALIDATION}
    for source in lock.sources.values():
        stages = source.stages
        assert stages[TRAIN].steps + stages[VALIDATION].steps == stages["viewed"].steps
        assert total(part.steps for part in source.strata.values()) == stages[TRAIN].steps


def test_statistics_are_those_of_the_selection_and_travel_with_the_lock(lab: Path) -> None:
    lock, _ = made(lab, 'view = "late"\nfilter = "length > 3"')
    record = Statistics.from_json(lock.statistics[lock.sources["one"].statistics], where="lock")
    assert (record.view, record.filters, record.steps) == ("late", "length > 3", 12)


def test_datasets_of_one_embodiment_may_be_normalized_as_one(lab: Path) -> None:
    lock, _ = made(lab, tables='[normalize]\nper = "embodiment"')
    assert {source.statistics for source in lock.sources.values()} == {"toy_arm"}
    record = Statistics.from_json(lock.statistics["toy_arm"], where="lock")
    assert record.steps == sum(map(sum, LENGTHS.values()))


def test_the_same_mixture_gives_the_same_bytes_whatever_the_order_of_its_file(lab: Path) -> None:
    first, table = made(lab)
    turned, other = made(lab, weights="two = 1.0\none = 1.0")
    assert first.encoded() == turned.encoded()
    assert locks.encoded_table(table) == locks.encoded_table(other)


def test_a_lock_holds_no_place_of_this_machine_and_works_where_it_is_moved(lab: Path, tmp_path: Path) -> None:
    lock, table = made(lab)
    assert str(lab).encode() not in lock.encoded()
    moved = tmp_path / "moved"
    shutil.copytree(lab, moved)
    locks.write(moved / "toy.lock", lock, table)
    again, _ = locks.read(moved / "toy.lock")
    assert make_lock(mix(), beside=moved)[0].encoded() == again.encoded()


def test_paraphrases_and_their_digest_are_in_the_lock(lab: Path, tmp_path: Path) -> None:
    table = {"task 0 ☂": ["do 0", "nought"], "task 4 ☂": ["four"]}
    lock, episodes = made(lab, tables=paraphrases(table))
    assert lock.spec["paraphrases"] == table
    assert lock.paraphrases_digest == locks.digest(table)
    locks.write(tmp_path / "toy.lock", lock, episodes)
    read, _ = locks.read(tmp_path / "toy.lock")
    assert read.paraphrases == {key: tuple(texts) for key, texts in table.items()}
    assert read.encoded() == lock.encoded()
    turned, _ = made(lab, tables=paraphrases(dict(reversed(table.items()))))
    assert turned.encoded() == lock.encoded()
    other, _ = made(lab, tables=paraphrases({**table, "task 4 ☂": ["4"]}))
    assert other.paraphrases_digest != lock.paraphrases_digest
    copy = lock.model_copy(update={"spec": other.spec})
    (tmp_path / "toy.lock").write_bytes(copy.encoded())
    with pytest.raises(MixtureError, match="edited by hand"):
        locks.read(tmp_path / "toy.lock")


@pytest.mark.parametrize("tables", ["", "[paraphrases]"])
def test_a_lock_without_paraphrases_has_no_trace_of_them(lab: Path, tables: str) -> None:
    lock, _ = made(lab, tables=tables)
    assert b"paraphrases" not in lock.encoded()
    assert lock.paraphrases == {}


def test_a_step_that_is_not_in_the_mixture_has_no_instruction_to_paraphrase(tmp_path: Path) -> None:
    first, rest, unused = "stand by", "go", "walk"
    episode = columns(0, steps=4)
    episode["language_instruction"] = [first.encode(), *[rest.encode()] * 3]
    toy = make_toy(tmp_path / "work", [episode, columns(1, steps=2)])
    assert toy.convert().code == 0
    toy.out.rename(tmp_path / "one")
    said = {"weights": "one = 1.0", "tables": '[sources]\none = { uri = "one" }\n'}
    for view, known in (("", {first, rest, "task 1 ☂"}), ('view = "late"', {rest, "task 1 ☂"})):
        for text in (first, rest, unused, "task 1 ☂"):
            options = {**said, "tables": said["tables"] + paraphrases({text: ["x"]})}
            if text in known:
                assert made(tmp_path, view, **options)[0].paraphrases == {text: ("x",)}
                continue
            with pytest.raises(SpecError, match=f"paraphrases: no step of the mixture has the instruction '{text}'"):
                made(tmp_path, view, **options)
    options = {**said, "tables": said["tables"] + paraphrases({"task 1 ☂": ["x"]})}
    with pytest.raises(SpecError, match=r"'task 1 ☂'\. \(known: go, stand by\)"):
        made(tmp_path, 'filter = "length > 2"', **options)


def test_a_misspelled_instruction_is_answered_with_the_nearest(lab: Path) -> None:
    with pytest.raises(SpecError, match=r"toy: paraphrases: .* 'tusk 4 ☂'; did you mean 'task 4 ☂'\?"):
        made(lab, tables=paraphrases({"tusk 4 ☂": ["four"]}))


def paraphrases(table: dict[str, list[str]]) -> str:
    """Write the table of a mixture's file."""
    return "[paraphrases]\n" + "".join(f"{json.dumps(key)} = {json.dumps(texts)}\n" for key, texts in table.items())


def test_presets_find_their_datasets_below_a_folder_by_name_or_by_what_they_are(lab: Path) -> None:
    spec = mix(tables="[sources]\n", weights="one = 1.0\ntwo = 1.0")
    with pytest.raises(SpecError, match=r"one \(no uri; set sources.one.uri, or pass --data"):
        make_lock(spec, beside=lab)
    assert {source.uri for source in make_lock(spec, beside=lab / "locks", data=str(lab))[0].sources.values()} == {
        "../one",
        "../two",
    }


def test_a_source_that_is_gone_is_an_error_or_left_out_with_its_reason(lab: Path) -> None:
    tables = '[sources]\none = { uri = "one" }\ntwo = { uri = "nowhere" }\n'
    with pytest.raises(SpecError, match=r"1 of 2 sources are not available: two \(.*nowhere: no meta/manifest.json"):
        made(lab, tables=tables)
    lock, _ = made(lab, 'missing = "skip"', tables=tables)
    assert [*lock.sources] == ["one"]
    assert "no meta/manifest.json" in lock.left_out["two"]


@pytest.mark.parametrize(
    ("text", "tables", "message"),
    [
        ('filter = "lenght > 3"', "", "no column 'lenght'; did you mean 'length'?"),
        ('filter = "length > 99"', "", "no episode meets 'length > 99'"),
        ('balance = "scene"', "", "no column 'scene'"),
        ("", '[holdout]\nby = "lab"', "no column 'lab'"),
        ('view = "eef"', "", "unknown dataset|has no view 'eef'"),
        ('weighting = "share"', "[caps]\nshare = 0.3", "caps: allow only 0.6 of the draws"),
        ('dims = ["x", "y", "z"]', "", "dims: 'gripper' of one is missing"),
        ('dims = ["x", "y", "z", "gripper", "w"]', "", "dims: 'w' is not in any source"),
    ],
)
def test_what_cannot_be_locked_says_why(lab: Path, text: str, tables: str, message: str) -> None:
    with pytest.raises((SpecError, UsageError), match=message):
        made(lab, text, tables=tables)


def test_a_damaged_or_edited_lock_is_refused(lab: Path, tmp_path: Path) -> None:
    lock, table = made(lab)
    path = tmp_path / "toy.lock"
    with pytest.raises(MixtureError, match="'oxe mix lock' writes a lock"):
        locks.read(path)
    locks.write(path, lock, table)
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(MixtureError, match="cannot be read as a lock"):
        locks.read(path)
    path.write_text(json.dumps({**json.loads(text), "version": 99}))
    with pytest.raises(MixtureError, match="version 99"):
        locks.read(path)
    path.write_text(text.replace("\n ", "\n"))
    with pytest.raises(MixtureError, match="edited by hand"):
        locks.read(path)
    path.write_text(text)
    side = locks.side_file(path)
    side.write_bytes(side.read_bytes()[:-1])
    with pytest.raises(MixtureError, match="as in the lock"):
        locks.read(path)


def test_every_flipped_bit_of_a_lock_is_noticed(lab: Path, tmp_path: Path) -> None:
    path = tmp_path / "toy.lock"
    locks.write(path, *made(lab, weights="one = 1.0", tables='[sources]\none = { uri = "one" }'))
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(MixtureError):
            locks.read(path)


def test_a_lock_without_a_digest_is_read_as_before(lab: Path, tmp_path: Path) -> None:
    path = tmp_path / "toy.lock"
    locks.write(path, *made(lab))
    lock, _ = locks.read(path)
    path.write_bytes(lock.encoded(has_digest=False))
    assert "digest" not in json.loads(path.read_bytes())
    old, _ = locks.read(path)
    assert old == lock.model_copy(update={"digest": None})
    path.write_bytes(path.read_bytes().replace(b'"epoch": ', b'"epoch":  '))
    with pytest.raises(MixtureError, match="edited by hand"):
        locks.read(path)


def test_a_lock_that_is_replaced_is_the_old_one_or_the_new_one_at_any_moment(lab: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    path = disk / "toy.lock"
    old = (old_lock, _) = made(lab)
    new = made(lab, 'filter = "length > 3"')
    locks.write(path, *old)
    for which, pair in (("old", old), ("new", new)):
        (tmp_path / which).write_bytes(pickle.dumps(pair))
    code = "import pickle, sys; from pathlib import Path; from schemas.mixture import lock\n"
    code += "lock.write(Path(sys.argv[1]), *pickle.loads(Path(sys.argv[2]).read_bytes()))"
    recording = record([sys.executable, "-c", code, str(path), str(tmp_path / "new")], disk, tmp_path / "log")
    found = set()
    losses = [*recording.single_losses(), *recording.random_losses(500, seed=1)]
    for kept in [*recording.prefixes(), *losses]:
        restore(recording.state(kept), disk)
        lock, table = locks.read(path)
        assert (lock.encoded(), table) in [(one.encoded(), rows) for one, rows in (old, new)]
        found.add(lock.episodes == old_lock.episodes)
        if kept in losses[::50]:
            locks.write(path, *new)
            assert locks.read(path)[1] == new[1]
            assert {file.name for file in disk.iterdir()} == {"toy.lock", "toy.lock.parquet"}
    assert found == {True, False}


def test_a_damaged_table_beside_a_lock_is_not_taken_for_another_one(lab: Path, tmp_path: Path) -> None:
    lock, table = made(lab)
    path = tmp_path / "toy.lock"
    locks.write(path, lock, table)
    (tmp_path / f"toy.lock.{lock.episodes}.parquet").write_bytes(b"half")
    with pytest.raises(MixtureError, match="as in the lock"):
        locks.read(path)
    locks.write(path, lock, table)
    assert {file.name for file in tmp_path.glob("toy.lock*")} == {"toy.lock", "toy.lock.parquet"}
