"""Every format can be read back, and gives the right result in its project's formulas, both ways."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import StatsError
from schemas.source import Array
from stats.formats import FORMS, Form, encode, load, norms, openvla_entry
from stats.norm import NormStats
from stats.record import Statistics
from tests.stats.makers import make_numbers, make_statistics

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
OURS_IN = {"native": "toy", "openvla": "toy", "lerobot": "", "openpi": ""}


def written(found: Statistics, form: Form, folder: Path) -> Any:
    (folder / "file.json").write_bytes(encode(found, form))
    return json.loads((folder / "file.json").read_text())


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read_back_number_for_number(form: Form, tmp_path: Path) -> None:
    found = make_statistics()
    written(found, form, tmp_path)
    read = load(tmp_path / "file.json")[OURS_IN[form]]
    for vector in ("action", "state"):
        ours = found.norm(vector)
        for name in ("mean", "std", "min", "max", "q01", "q99"):
            figures = getattr(read[vector], name)
            assert figures is None or np.array_equal(figures, getattr(ours, name)), name
    assert read["action"].mask.tolist() == ([True, True] if form in {"lerobot", "openpi"} else [True, False])


@pytest.mark.parametrize("form", FORMS)
def test_the_same_statistics_are_the_same_bytes(form: Form) -> None:
    assert encode(make_statistics(), form) == encode(make_statistics(), form)


def test_openvla_trains_with_its_file_and_oft_undoes_it(tmp_path: Path) -> None:
    x = make_numbers(rows=2000)
    metadata = written(make_statistics(x), "openvla", tmp_path)["toy"]
    assert set(metadata) == {"action", "proprio", "num_transitions", "num_trajectories"}
    assert (metadata["num_transitions"], metadata["num_trajectories"]) == (2000, 3)
    assert "mask" not in metadata["proprio"]
    action = {name: np.array(values) for name, values in metadata["action"].items()}
    low, high, mask = action["q01"], action["q99"], action["mask"]
    scaled = np.where(mask, np.clip(2 * (x - low) / (high - low + 1e-8) - 1, -1, 1), x)
    back = np.where(mask, 0.5 * (scaled + 1) * (high - low + 1e-8) + low, scaled)
    np.testing.assert_allclose(back, np.where(mask, np.clip(x, low, high), x), atol=1e-12)
    assert 0.95 < np.mean(np.abs(scaled[:, 0]) < 1) < 0.99  # 98% are inside
    np.testing.assert_allclose(make_statistics(x).norm().normalize(x), scaled, atol=1e-6)


def test_a_file_of_openvla_names_a_method_that_is_not_openvlas() -> None:
    result = make_statistics()
    plain = openvla_entry(result, action=result.norm())
    entry = openvla_entry(result, action=replace(result.norm(), method="bounds"))
    assert "method" not in plain["action"].keys() | plain["proprio"].keys()
    for vector in ("action", "proprio"):
        assert entry[vector].pop("method") == "bounds"
    assert entry == plain
    read = norms({"toy": openvla_entry(result, action=replace(result.norm(), method="bounds"))}, where="file")["toy"]
    assert {name: norm.method for name, norm in read.items()} == {"action": "bounds", "state": "bounds"}
    x = np.array([[-1.0, 0.3], [1.0, 0.3]])
    low, high = result.norm().min, result.norm().max
    assert low is not None
    assert high is not None
    np.testing.assert_allclose(read["action"].unnormalize(x)[:, 0], [low[0], high[0]], atol=1e-7)
    assert norms({"toy": plain}, where="file")["toy"]["action"].method == "bounds_q99"


@pytest.mark.parametrize("word", ["bound", 3, None, ["bounds"]])
def test_a_method_that_does_not_exist_is_refused(word: Any) -> None:
    entry = openvla_entry(make_statistics(), action=make_statistics().norm())
    entry["action"]["method"] = word
    with pytest.raises(StatsError, match="file: toy: action: method: unknown method"):
        norms({"toy": entry}, where="file")


def lerobot_quantiles(x: Array, stats: dict[str, Any]) -> Array:
    """LeRobot's NormalizerProcessorStep in the mode QUANTILES."""
    low, high = np.array(stats["q01"]), np.array(stats["q99"])
    return 2 * (x - low) / np.where(high == low, 1e-8, high - low) - 1


def test_lerobot_normalizes_with_its_file_and_back(tmp_path: Path) -> None:
    x = make_numbers(rows=2000)
    stats = written(make_statistics(x), "lerobot", tmp_path)
    assert set(stats) == {"action", "observation.state"}
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    assert stats["action"]["count"] == [2000]
    low, high = np.array(stats["action"]["q01"]), np.array(stats["action"]["q99"])
    scaled = lerobot_quantiles(x, stats["action"])
    np.testing.assert_allclose((scaled + 1) / 2 * (high - low) + low, x, atol=1e-6)
    assert np.array_equal((scaled <= 1).mean(axis=0) >= 0.99, [True, True])
    mean, std = np.array(stats["action"]["mean"]), np.array(stats["action"]["std"])
    standard = (x - mean) / (std + 1e-8)
    np.testing.assert_allclose(standard.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(standard * (std + 1e-8) + mean, x, atol=1e-6)


def test_openpi_normalizes_with_its_file_and_back(tmp_path: Path) -> None:
    x = make_numbers(rows=2000)
    stats = written(make_statistics(x), "openpi", tmp_path)["norm_stats"]
    assert set(stats) == {"state", "actions"}
    assert set(stats["actions"]) == {"mean", "std", "q01", "q99"}
    low, high = np.array(stats["actions"]["q01"]), np.array(stats["actions"]["q99"])
    scaled = (x - low) / (high - low + 1e-6) * 2.0 - 1.0
    np.testing.assert_allclose((scaled + 1.0) / 2.0 * (high - low + 1e-6) + low, x, atol=1e-6)
    mean, std = np.array(stats["actions"]["mean"]), np.array(stats["actions"]["std"])
    np.testing.assert_allclose((x - mean) / (std + 1e-6) * (std + 1e-6) + mean, x, atol=1e-6)


def test_statistics_without_a_state_are_written_without_one() -> None:
    found = make_statistics()
    bare = Statistics.from_json(found.to_json(), where="")
    bare = make_statistics(vectors={"action": bare.vectors["action"]})
    assert [set(json.loads(encode(bare, form)).get("norm_stats", {"actions": 0})) for form in ("openpi",)] == [
        {"actions"}
    ]
    assert set(json.loads(encode(bare, "lerobot"))) == {"action"}
    assert "proprio" not in json.loads(encode(bare, "openvla"))["toy"]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "rt-x-colab-constants"])
def test_published_figures_load(name: str) -> None:
    read = norms(PUBLISHED[name], where=name)
    assert read.keys() == PUBLISHED[name].keys()
    for dataset, vectors in read.items():
        entry = PUBLISHED[name][dataset]
        for vector, norm in vectors.items():
            source = entry["action" if vector == "action" else "proprio"]
            assert norm.q99 is not None
            assert norm.q99.tolist() == source.get("q99", source.get("p99"))
            assert norm.mask.tolist() == source.get("mask", [True] * len(norm.names))


def test_the_config_of_an_openvla_checkpoint_is_found_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "openvla", "norm_stats": PUBLISHED["openvla-7b"]}))
    assert len(load(tmp_path)) == 25
    local = {"mine": PUBLISHED["openvla-7b"]["kuka"]}
    (tmp_path / "dataset_statistics.json").write_text(json.dumps(local))
    assert list(load(tmp_path)) == ["mine"]  # a local file overrides the config


def test_the_assets_of_an_openpi_checkpoint_are_found(tmp_path: Path) -> None:
    (tmp_path / "assets/lab/arm").mkdir(parents=True)
    (tmp_path / "assets/lab/arm/norm_stats.json").write_bytes(encode(make_statistics(), "openpi"))
    (tmp_path / "config.json").write_text("{}")
    assert set(load(tmp_path)[""]) == {"action", "state"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as statistics"),
        ("[]", "expected statistics as a JSON object, got list"),
        ("{}", r"contains no statistics in a known format \(native, openvla, lerobot, openpi\)"),
        ('{"action": {"mean": [1, 2], "std": [1]}}', "action: std: expected 2 finite numbers"),
        ('{"a": {"action": {"mean": ["x"]}}}', "a: action: could not convert"),
        ('{"action": {"mean": [NaN], "std": [1]}}', "action: mean: expected 1 finite numbers"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(StatsError, match=f"f.json: {said}"):
        load(tmp_path / "f.json")


def test_a_folder_without_statistics_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StatsError, match="contains no statistics in a known format"):
        load(tmp_path)
    with pytest.raises(StatsError, match="cannot be read as statistics"):
        load(tmp_path / "nowhere.json")


@pytest.mark.realdata
def test_statistics_published_with_recordings_load(realdata: Path) -> None:
    octo = load(realdata / "norm_stats/open_pi_zero/config/bridge_statistics.json")
    assert [len(norm.names) for norm in octo[""].values()] == [7, 7]
    cogact = load(realdata / "norm_stats/cogact_oxe_dataset_statistics/dataset_statistics.json")
    assert len(cogact) == 26
    lerobot = load(realdata / "lerobot_v20/gr1_picknplace/demo_data/robot_sim.PickNPlace/meta/stats.json")
    assert [len(norm.names) for norm in lerobot[""].values()] == [44, 44]
    assert isinstance(lerobot[""]["action"], NormStats)
