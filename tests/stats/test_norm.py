from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.errors import StatsError, UsageError
from schemas.source import Array
from stats.norm import NEEDS, Method, NormStats
from tests.stats.makers import make_numbers, make_statistics

METHODS: list[Method] = ["bounds_q99", "bounds", "normal"]
floats = st.floats(-100, 100, width=32)


def make_norm(x: Array, **changes: Any) -> NormStats:
    wide = x.astype(np.float64)
    figures: dict[str, Any] = {
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
        "min": wide.min(axis=0),
        "max": wide.max(axis=0),
        "q01": np.quantile(wide, 0.01, axis=0),
        "q99": np.quantile(wide, 0.99, axis=0),
    }
    names = tuple(f"d{i}" for i in range(x.shape[1]))
    return NormStats(**{"names": names, "mask": np.ones(x.shape[1], bool), **figures, **changes})


def openvla(x: Array, norm: NormStats, method: Method) -> Array:
    """Compute OpenVLA's `normalize_action_and_proprio` for one vector, in float32 like TensorFlow."""
    f = {name: np.asarray(getattr(norm, name), np.float32) for name in ("mean", "std", "min", "max", "q01", "q99")}
    out = np.empty_like(x)
    for i in range(x.shape[1]):
        column = x[:, i]
        if not norm.mask[i]:
            out[:, i] = column
        elif method == "normal":
            out[:, i] = (column - f["mean"][i]) / (f["std"][i] + np.float32(1e-8))
        else:
            low, high = (f["q01"][i], f["q99"][i]) if method == "bounds_q99" else (f["min"][i], f["max"][i])
            scaled = np.float32(2) * (column - low) / (high - low + np.float32(1e-8)) - np.float32(1)
            out[:, i] = np.minimum(np.maximum(scaled, np.float32(-1)), np.float32(1))
        if method != "normal" and f["min"][i] == f["max"][i]:
            out[:, i] = 0
    return out


@pytest.mark.parametrize("method", METHODS)
@given(x=arrays(np.float32, (12, 3), elements=floats), mask=arrays(bool, 3))
def test_normalizing_is_openvlas_formula_bit_for_bit(method: Method, x: Array, mask: Array) -> None:
    norm = make_norm(x, mask=mask)
    assert norm.normalize(x, method).tobytes() == openvla(x, norm, method).tobytes()


@pytest.mark.parametrize("method", ["bounds_q99", "bounds"])
def test_unnormalizing_is_ofts_formula_and_without_eps_openvlas(method: Method) -> None:
    norm = make_norm(make_numbers(dims=3), mask=np.array([True, True, False]))
    low, high = (getattr(norm, name) for name in NEEDS[method])
    x = np.random.default_rng(1).uniform(-1, 1, (20, 3))
    for eps in (1e-8, 0.0):
        wanted = np.where(norm.mask, 0.5 * (x + 1) * (high - low + eps) + low, x)
        assert np.array_equal(norm.unnormalize(x, method, eps=eps), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_inside_the_range_comes_back(method: Method) -> None:
    x = make_numbers(dims=3, rows=2000)
    norm = make_norm(x, mask=np.array([True, True, False]))
    inside = np.clip(x, norm.q01, norm.q99)
    np.testing.assert_allclose(norm.unnormalize(norm.normalize(inside, method), method), inside, atol=2e-6)


def test_a_constant_becomes_0_even_where_the_mask_is_false() -> None:
    """The gripper of language_table is always 1; OpenVLA trains on 0."""
    x = np.float32([[1, 1, 0.5], [1, 2, 0.5]])
    norm = make_norm(x, mask=np.array([False, True, True]))
    assert norm.normalize(x)[:, [0, 2]].tolist() == [[0, 0], [0, 0]]
    assert norm.unnormalize(norm.normalize(x))[0, 0] == 0  # as in OpenVLA; only `safe` avoids it
    assert norm.safe().unnormalize(norm.safe().normalize(x))[0, [0, 2]].tolist() == [1, 0.5]


def test_equal_quantiles_of_a_dimension_that_varies_send_0_to_minus_1() -> None:
    """As in berkeley_fanuc_manipulation of OpenVLA."""
    norm = NormStats(
        names=("rx",), mask=np.ones(1, bool), **{k: np.zeros(1) for k in ("q01", "q99", "min")}, max=np.ones(1)
    )
    assert norm.normalize(np.float32([[0], [0.01]])).ravel().tolist() == [-1, 1]


def test_the_safe_mode_names_what_would_explode() -> None:
    """openpi#814: with a range of 0.001, 0 was normalized to -3200."""
    x = make_numbers(dims=3, rows=1000)
    x[:, 1] = np.linspace(1.6, 1.601, 1000)
    norm = make_norm(x)
    openpi = 2 * (0 - norm.q01[1]) / (norm.q99[1] - norm.q01[1] + 1e-6) - 1  # type: ignore[index]
    assert openpi < -3200
    said = "d1: q01 to q99 spans 0.00098, so a difference of 1 becomes 2.04e.03; use another method, or pin or mask"
    with pytest.raises(StatsError, match=said):
        norm.safe()
    pinned = norm.safe(pin=["d1"])
    assert pinned.pinned == {"d1"}
    assert pinned.normalize(np.zeros((1, 3), np.float32))[0, 1] == 0
    assert pinned.unnormalize(np.full((1, 3), 0.7))[0, 1] == pytest.approx(1.6005)
    assert np.array_equal(pinned.normalize(x)[:, [0, 2]], norm.normalize(x)[:, [0, 2]])


@pytest.mark.parametrize("method", METHODS)
def test_sound_statistics_are_safe_as_they_are(method: Method) -> None:
    x = make_numbers()
    norm = make_norm(x)
    assert norm.degenerate(method) == {}
    assert norm.safe(method).normalize(x, method).tobytes() == norm.normalize(x, method).tobytes()


def test_a_dimension_that_is_not_normalized_cannot_explode() -> None:
    x = make_numbers(dims=2)
    x[:, 1] = np.linspace(1.6, 1.601, len(x))
    assert make_norm(x, mask=np.array([True, False])).safe().pinned == frozenset()


def test_a_dimension_to_pin_must_exist() -> None:
    with pytest.raises(UsageError, match=r"no dimension 'd9' to pin. .known: d0, d1."):
        make_norm(make_numbers()).safe(pin=["d9"])


def test_a_method_needs_its_figures() -> None:
    norm = make_norm(make_numbers(), min=None, max=None)
    with pytest.raises(StatsError, match="method 'bounds' needs min and max, which these statistics do not have"):
        norm.normalize(np.zeros((1, 2)), "bounds")
    with pytest.raises(UsageError, match=r"unknown method 'bound'; did you mean 'bounds'?"):
        norm.normalize(np.zeros((1, 2)), "bound")  # type: ignore[arg-type]


@pytest.mark.parametrize("figures", [[1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_figures_that_do_not_fit_are_refused(figures: list[float]) -> None:
    with pytest.raises(StatsError, match="q01: expected 2 finite numbers"):
        make_norm(make_numbers(), q01=np.array(figures))


def test_chunks_are_normalized_step_by_step() -> None:
    chunks = np.random.default_rng(0).normal(size=(30, 4, 2)).astype(np.float32)
    norm = make_norm(chunks.reshape(30, 8))
    by_step = {name: getattr(norm, name).reshape(4, 2) for name in ("mean", "std", "min", "max", "q01", "q99")}
    stepwise = NormStats(names=("a", "b"), mask=np.ones(2, bool), **by_step)
    assert np.array_equal(stepwise.normalize(chunks).reshape(30, 8), norm.normalize(chunks.reshape(30, 8)))


def test_exact_statistics_give_norm_stats_with_their_space() -> None:
    norm = make_statistics().norm("action")
    assert norm.names == ("x0", "gripper")
    assert norm.space is not None
    assert norm.mask.tolist() == [True, False]


# OpenVLA-OFT


def oft_proprio(x: Array, norm: NormStats, method: Method) -> Array:
    """Compute OpenVLA-OFT's `normalize_proprio` for dimensions that vary, in float64."""
    low, high = (getattr(norm, name) for name in NEEDS[method])
    return np.asarray(np.clip(np.where(norm.mask, 2 * (x - low) / (high - low + 1e-8) - 1, x), -1.0, 1.0))


def oft_unnormalized(x: Array, norm: NormStats, method: Method) -> Array:
    """Compute OpenVLA-OFT's `_unnormalize_actions`, in float64."""
    low, high = (getattr(norm, name) for name in NEEDS[method])
    return np.asarray(np.where(norm.mask, 0.5 * (x + 1) * (high - low + 1e-8) + low, x))


@pytest.mark.parametrize("method", ["bounds_q99", "bounds"])
@given(x=arrays(np.float32, (9, 3), elements=floats), mask=arrays(bool, 3), scale=st.sampled_from([1.0, 3.0]))
def test_a_proprio_is_clipped_in_every_dimension_at_inference(
    method: Method, x: Array, mask: Array, scale: float
) -> None:
    base = make_numbers(dims=3, rows=50)
    norm = make_norm(base, mask=mask, method=method)
    result = norm.normalize_proprio(scale * x)
    assert np.abs(result).max() <= 1
    np.testing.assert_allclose(result, oft_proprio(scale * x.astype(np.float64), norm, method), atol=2e-5)
    np.testing.assert_array_equal(result, np.clip(norm.normalize(scale * x), -1, 1))


@given(x=arrays(np.float64, (9, 3), elements=st.floats(-1, 1)), mask=arrays(bool, 3))
def test_actions_are_undone_by_the_method_that_the_statistics_name(x: Array, mask: Array) -> None:
    for method in ("bounds_q99", "bounds"):
        norm = make_norm(make_numbers(dims=3, rows=50), mask=mask, method=method)
        assert np.array_equal(norm.unnormalize(x), oft_unnormalized(x, norm, method))  # type: ignore[arg-type]


def test_the_method_of_statistics_is_used_where_none_is_named() -> None:
    x = make_numbers(dims=3)
    for method in METHODS:
        norm, plain = make_norm(x, method=method), make_norm(x)
        assert plain.method == "bounds_q99"
        for function in ("normalize", "unnormalize", "normalize_proprio"):
            own, named = getattr(norm, function)(x), getattr(plain, function)(x, method)
            assert own.tobytes() == named.tobytes(), function
        assert norm.middle().tobytes() == plain.middle(method).tobytes()
        assert norm.safe().normalize(x).tobytes() == plain.safe(method).normalize(x, method).tobytes()
        assert norm.degenerate() == plain.degenerate(method)


# Constant dimensions


def still(*, constant: Any = "zero") -> NormStats:
    """Return the statistics of a moving, a masked constant, an unmasked constant and an unmasked moving dimension."""
    low, high = np.array([-1.0, 3.0, 1.0, 0.0]), np.array([1.0, 3.0, 1.0, 1.0])
    mask = np.array([True, True, False, False])
    return NormStats(
        names=("x", "yaw", "gripper", "lid"), mask=mask, min=low, max=high, q01=low, q99=high, constant=constant
    )


@pytest.mark.parametrize("method", ["bounds", "bounds_q99"])
def test_keep_teaches_the_recorded_value_and_zero_teaches_openvlas(method: Any) -> None:
    recorded = np.float32([[0.5, 3.0, 1.0, 1.0]])
    assert still().normalize(recorded, method)[0].tolist() == [0.5, 0.0, 0.0, 1.0]
    kept = still(constant="keep").normalize(recorded, method)
    assert kept[0].tolist() == [0.5, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(still(constant="keep").unnormalize(kept, method, eps=0), recorded)


def test_the_original_code_reads_a_kept_constant_right() -> None:
    """OpenVLA: `np.where(mask, 0.5 * (actions + 1) * (high - low) + low, actions)`."""
    norm = still(constant="keep")
    label = norm.normalize(np.float32([[0.5, 3.0, 1.0, 1.0]]))
    original = np.where(norm.mask, 0.5 * (label + 1) * (norm.q99 - norm.q01) + norm.q01, label)
    np.testing.assert_allclose(original, [[0.5, 3.0, 1.0, 1.0]])


def test_safe_pins_constants_whatever_becomes_of_them() -> None:
    for constant in ("keep", "zero"):
        norm = still(constant=constant).safe(pin=["lid"])
        label = norm.normalize(np.float32([[0.5, 3.0, 1.0, 1.0]]))
        assert label[0].tolist() == [0.5, 0.0, 0.0, 0.0]
        assert norm.unnormalize(label)[0, 1:].tolist() == [3.0, 1.0, 0.5]


def test_the_constant_dimensions_are_named_with_their_values() -> None:
    assert still().constants() == {"yaw": 3.0, "gripper": 1.0}
    assert NormStats(names=("x",), mask=np.array([True]), mean=np.zeros(1)).constants() == {}


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q01": np.array([0.0, 5.0]), "q99": np.ones(2)}, "q01: dimension y is 5, above q99, which is 1"),
        ({"min": np.array([2.0, 0.0]), "max": np.ones(2)}, "min: dimension x is 2, above max, which is 1"),
        ({"std": np.array([1.0, -1.0])}, "std: dimension y is -1, below 0"),
        ({"q99": np.array([1.0, np.inf])}, "q99: expected 2 finite numbers, but dimension y is inf"),
        ({"min": np.array([[0.0, 0.0], [0.0, np.nan]])}, "min: expected 2 finite numbers, but dimension y is nan"),
        ({"mask": np.array([True])}, "mask: expected 2 finite numbers"),
    ],
)
def test_statistics_that_contradict_themselves_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(StatsError, match=message):
        NormStats(**{"names": ("x", "y"), "mask": np.array([True, True]), **changes})
