"""The numbers of `mix stats` and `mix sample` are those of the datasets."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.convert.convert import convert
from pipelines.mix.make import make_lock
from pipelines.mix.report import UNLIKELY, leakage, p_value, sample, summary
from schemas.declarations import catalog
from schemas.mixture.spec import load
from tests.pipelines.mix.lab import LENGTHS, made, make_datasets, mix


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_datasets(tmp_path_factory.mktemp("lab"))


def test_hours_steps_and_the_effective_number_of_sources(lab: Path) -> None:
    found = summary(*made(lab, 'weighting = "share"'))
    steps = sum(map(sum, LENGTHS.values()))
    assert (found.episodes, found.steps, found.hours) == (6, steps, pytest.approx(steps / 10 / 3600))
    assert found.effective_sources == pytest.approx(2)
    assert summary(*made(lab, 'weighting = "share"', weights="one = 999\ntwo = 1")).effective_sources < 1.02


def test_a_motion_that_two_sources_hold_is_leakage(lab: Path) -> None:
    tables = '[sources]\none = { uri = "one" }\ntwo = { uri = "one", filter = "length > 4" }\n'
    found = summary(*made(lab, tables=tables)).leakage
    assert (found.motions_in_several_sources, found.motions_twice) == (4, 2)
    assert summary(*made(lab)).leakage.motions_twice == 0


def test_a_paraphrase_that_is_a_held_out_instruction_is_leakage(lab: Path) -> None:
    holdout = '[holdout]\nby = "instruction"\nshare = 0.16\n'
    _, table = made(lab, tables=holdout)
    parts = {row["instruction"]: row["part"] for row in table.to_pylist()}
    (trained, other, *_), (held, *_) = ([text for text in parts if parts[text] == part] for part in ("train", "val"))
    counts = {}
    for text, paraphrase in ((trained, held), (trained, other), (held, trained), (trained, "new")):
        result = summary(*made(lab, tables=f'{holdout}[paraphrases]\n"{text}" = ["{paraphrase}"]'))
        counts[text, paraphrase] = result.leakage.instructions_in_both_parts
        assert result.to_json()["paraphrases"] == {text: (paraphrase,)}
    assert counts == {(trained, held): 2, (trained, other): 0, (held, trained): 0, (trained, "new"): 0}


def test_the_sample_is_what_the_shares_say(lab: Path) -> None:
    lock, _ = made(lab, 'balance = "instruction"', weights="one = 3.0\ntwo = 1.0")
    found = sample(lock, 20_000)
    assert found.ok
    assert sum(source.draws for source in found.sources.values()) == 20_000
    assert sample(lock, 20_000, seed=5).seed == 5


def test_counts_that_do_not_follow_the_shares_are_very_unlikely() -> None:
    shares = np.array([0.5, 0.3, 0.2 - 1e-5, 1e-5])
    assert p_value(np.array([5000, 3010, 1990, 0]), shares) > 0.1
    assert p_value(np.array([5000, 3400, 1600, 0]), shares) < UNLIKELY
    assert p_value(np.array([10]), np.array([1.0])) == 1.0


@pytest.mark.realdata
def test_the_validation_split_of_the_debug_bridge_is_its_training_split(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"
    convert(catalog.dataset("bridge_dataset"), tmp_path / "bridge_dataset", source=str(source))
    spec = load('name = "b"\nview = "openvla"\nweighting = "share"\n[weights]\nbridge_dataset = 1.0', where="b.toml")
    lock, table = make_lock(spec, beside=tmp_path, data=str(tmp_path))
    assert leakage(table).motions_in_several_splits == 50
    assert lock.sources["bridge_dataset"].stages["viewed"].steps == 50 * 8


def test_mixtures_of_one_source_pass_any_sample(lab: Path) -> None:
    lock, _ = make_lock(mix(weights="one = 1.0", tables='[sources]\none = { uri = "one" }\n'), beside=lab)
    assert sample(lock, 10).p == 1.0
