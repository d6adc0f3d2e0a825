"""A lock says what becomes of dimensions that never change; one of an earlier version means OpenVLA's rule."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.mix.drift import drift, lock_differences
from pipelines.mix.make import make_lock
from schemas.mixture import lock as locks
from schemas.mixture.lock import Lock
from schemas.mixture.spec import mixture, mixture_names
from stats.locked import constant_warnings, constants, locked_norm, locked_state_norm
from tests.pipelines.mix.lab import mix
from tests.pipelines.toy import columns, make_toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert two toys: the gripper of `one` is always open."""
    out = tmp_path_factory.mktemp("locked")
    for name in ("one", "two"):
        episodes = [columns(i, steps=5) for i in range(3)]
        for episode in episodes:
            if name == "one":
                np.asarray(episode["action"])[:, 3] = 1.0
        toy = make_toy(out / f"work_{name}", episodes)
        assert toy.convert().code == 0
        toy.out.rename(out / name)
    return out


def locked(folder: Path, constant: str | None) -> Lock:
    return make_lock(mix(tables=f'[normalize]\nconstant = "{constant}"' if constant else ""), beside=folder)[0]


def test_keep_is_the_default_and_the_lock_says_so(folder: Path) -> None:
    for written, constant in ((None, "keep"), ("keep", "keep"), ("zero", "zero")):
        lock = locked(folder, written)
        assert json.loads(lock.encoded())["constant"] == lock.constant == constant
        label = locked_norm(lock, "one").normalize(np.float32([[0, 0, 0, 1]]))[0, 3]
        assert label == (1 if constant == "keep" else 0)


def test_a_lock_without_the_key_means_zero_and_stays_valid(folder: Path) -> None:
    lock, table = make_lock(mix(), beside=folder)
    content = json.loads(lock.encoded())
    del content["constant"], content["digest"]
    path = folder / "old.lock"
    locks.write(path, lock, table)
    path.write_bytes(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    old, _ = locks.read(path)
    assert old.constant == "zero"
    assert locked_norm(old, "one").normalize(np.float32([[0, 0, 0, 1]]))[0, 3] == 0
    assert drift(old, beside=folder, deep=True) == []


def test_grippers_are_normalized_where_the_mixture_says_so(folder: Path) -> None:
    """OpenVLA-OFT normalizes all 14 numbers of ALOHA, also the grippers."""
    for words, mask in (("", [True, True, True, False]), ('grippers = "normalize"', [True] * 4)):
        lock = make_lock(mix(tables=f'[normalize]\nmethod = "bounds"\n{words}'), beside=folder)[0]
        norm = locked_norm(lock, "two")
        assert norm.mask.tolist() == mask
        assert (lock.method, norm.method) == ("bounds", "bounds")
        assert json.loads(lock.encoded())["grippers"] == ("normalize" if words else "keep")
        assert norm.min is not None
        assert norm.normalize(np.float32([norm.min]))[0, 3] == (-1 if words else np.float32(norm.min[3]))
        assert drift(lock, beside=folder, deep=True) == []


def test_a_lock_without_the_key_for_grippers_keeps_them_and_stays_valid(folder: Path) -> None:
    lock, table = make_lock(mix(), beside=folder)
    content = json.loads(lock.encoded())
    del content["grippers"], content["digest"]
    path = folder / "older.lock"
    locks.write(path, lock, table)
    path.write_bytes(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    old, _ = locks.read(path)
    assert (old.grippers, locked_norm(old, "two").mask.tolist()) == ("keep", [True, True, True, False])
    assert drift(old, beside=folder, deep=True) == []


def test_two_locks_that_treat_grippers_differently_differ(folder: Path) -> None:
    one, two = (
        make_lock(mix(tables=f'[normalize]\ngrippers = "{word}"'), beside=folder)[0] for word in ("keep", "normalize")
    )
    assert "grippers is 'keep' and 'normalize'" in lock_differences(one, two)


def test_the_statistics_of_states_have_the_method_of_the_lock(folder: Path) -> None:
    lock = make_lock(mix(tables='[normalize]\nmethod = "bounds"'), beside=folder)[0]
    norm = locked_state_norm(lock, "two")
    assert norm is not None
    assert (norm.method, norm.names, norm.mask.tolist()) == ("bounds", ("x", "y", "z"), [True] * 3)


def test_the_shipped_mixtures_of_aloha_normalize_as_oft_does() -> None:
    names = [name for name in mixture_names() if name.startswith("openvla_oft/")]
    for name in names:
        normalize = mixture(name).normalize
        expected = ("bounds", "normalize") if "aloha" in name else ("bounds_q99", "keep")
        assert (normalize.method, normalize.grippers) == expected
    assert len(names) == 5


def test_constants_are_named_and_warned_of_where_a_policy_would_not_reproduce_them(folder: Path) -> None:
    for constant, count in (("keep", 0), ("zero", 1)):
        lock = locked(folder, constant)
        assert constants(lock, "one") == {"gripper": 1.0}
        assert constants(lock, "two") == {}
        assert len(list(constant_warnings(lock, "one"))) == count
        assert list(constant_warnings(lock, "two")) == []


def test_dimensions_that_a_source_lacks_are_not_called_constant(folder: Path) -> None:
    lock = make_lock(mix('dims = ["x", "y", "z", "gripper"]'), beside=folder)[0]
    assert constants(lock, "one") == {"gripper": 1.0}


@pytest.mark.parametrize("name", [name for name in mixture_names() if name.startswith("openvla")])
def test_the_shipped_mixtures_of_openvla_and_oft_follow_its_rule(name: str) -> None:
    assert mixture(name).normalize.constant == "zero"
