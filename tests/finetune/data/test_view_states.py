"""Batches have the state of the mixture's view, normalized with the statistics of that state by the lock's method."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.mix.drift import drift
from schemas.errors import MixtureError, UsageError
from schemas.source import Array
from schemas.store.dataset import open_dataset
from stats.locked import locked_state_norm
from tests.finetune.lab import locked, make_loader, read
from tests.pipelines.toy import columns, make_toy, write_spec

OWN = """state = ["raw.observation.torque[1]", "observation.state[:2] | scale(10)"]
after = ["drop_last(1)"]

[views.late.state_space]
parts.torque = "other torque, unknown, absolute"
parts.xy     = "position x y, unknown, absolute"
"""
LENGTHS = {"one": (4, 5, 7), "two": (10, 20)}
METHODS = ("bounds_q99", "bounds", "normal")


def make_datasets(folder: Path, extra: dict[str, str]) -> Path:
    """Convert `one` and `two`, whose view `late` leaves out the first and the last step and has its own state."""
    for k, (name, counts) in enumerate(LENGTHS.items()):
        toy = make_toy(folder / f"work_{name}", [columns(10 * k + i, steps=n) for i, n in enumerate(counts)])
        write_spec(toy.folder, extra=extra[name])
        assert toy.convert().code == 0
        toy.out.rename(folder / name)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_datasets(tmp_path_factory.mktemp("states"), dict.fromkeys(LENGTHS, OWN))


def lock(lab: Path, method: str) -> Path:
    return locked(lab, 'view = "late"', tables=f'[normalize]\nmethod = "{method}"')


def states(seed: int, steps: int) -> Array:
    """Compute the view's states of one recorded episode by hand."""
    made = columns(seed, steps=steps)
    state, torque = np.asarray(made["observation.state"]), np.asarray(made["observation.torque"])
    parts = [torque[:, 1:].astype(np.float32), state[:, :2] * np.float32(10)]
    return np.concatenate(parts, axis=1)[1:-1]


def all_states(name: str) -> list[Array]:
    k = list(LENGTHS).index(name)
    return [states(10 * k + i, n) for i, n in enumerate(LENGTHS[name])]


def normalized(x: Array, of: Array, method: str) -> Array:
    """Normalize with OpenVLA-OFT's formulas."""
    wide = of.astype(np.float64)
    if method == "normal":
        return np.asarray((x - wide.mean(axis=0)) / (wide.std(axis=0) + 1e-8))
    pairs = {"bounds": (wide.min(axis=0), wide.max(axis=0)), "bounds_q99": np.quantile(wide, [0.01, 0.99], axis=0)}
    low, high = pairs[method]
    return np.asarray(np.clip(2 * (x - low) / (high - low + 1e-8) - 1, -1, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("history", [1, 3])
def test_every_state_is_what_a_reader_computes_by_hand(lab: Path, history: int, method: str) -> None:
    loader = make_loader(lock(lab, method), batch_size=6, history=history, state=True, cameras=(), chunk=2)
    seen = set()
    for batch in itertools.islice(loader, 10):
        assert batch.state.shape == (6, history, 3)
        assert batch.state.dtype == np.float32
        for i in range(6):
            name = loader.sources[batch.source[i]]
            episodes = all_states(name)
            own = episodes[int(batch.episode[i])]
            rows = np.arange(int(batch.step[i]) - history, int(batch.step[i]))  # the view leaves out the first step
            wanted = normalized(own[rows.clip(0)], np.concatenate(episodes), method)
            np.testing.assert_allclose(batch.state[i], wanted, atol=2e-5)
            seen.add((name, int(batch.episode[i])))
    assert {name for name, _ in seen} == {"one", "two"}


def test_a_loader_tells_the_dimensions_and_statistics_of_states(lab: Path) -> None:
    path = lock(lab, "bounds")
    loader = make_loader(path, cameras=())
    for name in ("one", "two"):
        norm = loader.state_norm(name)
        assert norm.names == ("torque", "x", "y")
        assert norm.space is not None
        assert norm.space == open_dataset(lab / name).state_space("late")
        assert (norm.method, loader.norm(name).method) == ("bounds", "bounds")
        assert norm.min is not None
        np.testing.assert_array_equal(norm.min, np.concatenate(all_states(name)).min(axis=0))
        assert norm.mask.all()
        locked_norm = locked_state_norm(read(path), name)
        assert locked_norm is not None
        assert (locked_norm.names, locked_norm.min.tolist()) == (norm.names, norm.min.tolist())  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"no source 'oen'; did you mean 'one'\?"):
        loader.state_norm("oen")


def test_a_lock_of_it_is_written_and_read_and_notices_a_change_of_the_state(lab: Path, tmp_path: Path) -> None:
    path = lock(lab, "bounds_q99")
    first = read(path)
    assert drift(first, beside=lab, deep=True) == []
    assert first.encoded() == path.read_bytes()
    (space,) = {json.dumps(record["vectors"]["state"]["space"]) for record in first.statistics.values()}
    assert [dim["name"] for dim in json.loads(space)["dims"]] == ["torque", "x", "y"]
    make_datasets(tmp_path, {"one": OWN, "two": OWN.replace("scale(10)", "scale(9)")})
    text = json.loads(path.read_text())
    for name in ("one", "two"):
        text["sources"][name]["manifest"] = open_dataset(tmp_path / name).digest
    assert any("view 'late' has changed" in line for line in drift(type(first)(**text), beside=tmp_path))


def test_states_of_other_units_are_not_put_in_one_array(tmp_path: Path) -> None:
    other = OWN.replace('"other torque, unknown', '"other torque, controller')
    make_datasets(tmp_path, {"one": OWN, "two": other})
    path = locked(tmp_path, 'view = "late"')
    assert next(iter(make_loader(path, cameras=()))).state is None
    with pytest.raises(MixtureError, match="state: the sources' states differ in dimensions or units: one: torque, x"):
        make_loader(path, state=True)


def test_a_source_without_a_state_says_so(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "work")
    parts = 'parts  = { xyz = { kind = "position", dims = ["x", "y", "z"], unit = "m", mode = "absolute" } }\n\n'
    state = f'[embodiment.state]\norigin = "achieved"\nframe  = "base"\n{parts}'
    write_spec(toy.folder, replace={state: "", '[state]\nxyz = "observation.state"\n\n': ""})
    assert toy.convert().code == 0
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(toy.out)
    path = locked(tmp_path, weights="one = 1.0", tables='[sources]\none = { uri = "one" }')
    with pytest.raises(UsageError, match="one: has no state"):
        make_loader(path).state_norm("one")
    with pytest.raises(MixtureError, match="one: none"):
        make_loader(path, state=True)
    assert locked_state_norm(read(path), "one") is None
