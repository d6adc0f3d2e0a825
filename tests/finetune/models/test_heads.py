"""Heads, projectors and the sampler of diffusion equal plain implementations of the same formulas."""

from math import cos, pi
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.source import Array

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.heads import (  # noqa: E402 - only where torch is
    DDIM,
    DiffusionHead,
    L1Head,
    NumbersProjector,
    timestep_embedding,
)

sizes = {
    "chunk": st.integers(1, 9),
    "numbers": st.integers(1, 9),
    "text": st.integers(2, 12),
    "seed": st.integers(0, 99),
}


# The formulas, in numpy and float64


def layer_norm(x: Array, weights: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def linear(x: Array, weights: dict[str, Array], name: str) -> Array:
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def resnet(hidden: Array, weights: dict[str, Array], *, numbers: int) -> Array:
    """Map [B, K * A, H] to [B, K, A]."""
    size, count, text = hidden.shape
    x = hidden.reshape(size, count // numbers, numbers * text)
    x = np.maximum(linear(layer_norm(x, weights, "layer_norm1"), weights, "fc1"), 0)
    for i in range(2):
        block = f"mlp_resnet_blocks.{i}.ffn"
        x = x + np.maximum(linear(layer_norm(x, weights, f"{block}.0"), weights, f"{block}.1"), 0)
    return linear(layer_norm(x, weights, "layer_norm2"), weights, "fc2")


def alphas(steps: int) -> Array:
    """Compute the shares of the signal that are left after each step: squared cosines, with betas of at most 0.999."""
    left = [cos((i / steps + 0.008) / 1.008 * pi / 2) ** 2 for i in range(steps + 1)]
    betas = [min(1 - left[i + 1] / left[i], 0.999) for i in range(steps)]
    return np.cumprod(1 - np.array(betas))


def sampled(x: Array, noises: list[Array]) -> Array:
    """Sample with DDIM (eta 0) of 50 training steps; `noises` are what is predicted in each step."""
    left, count = alphas(50), len(noises)
    for step, noise in zip(reversed(range(count)), noises, strict=True):
        time = step * (50 // count)
        before = left[time - 50 // count] if time >= 50 // count else 1.0
        clean = np.clip((x - np.sqrt(1 - left[time]) * noise) / np.sqrt(left[time]), -1, 1)
        x = np.sqrt(before) * clean + np.sqrt(1 - before) * noise
    return x


# Heads


def randomized(module: Any, seed: int) -> tuple[Any, dict[str, Array]]:
    """Draw all weights of a module, also those that start as 0 or 1, and return them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module, {name: value.double().numpy() for name, value in module.state_dict().items()}


@given(**sizes)
@settings(max_examples=15)
def test_an_l1_head_is_the_plain_residual_network(chunk: int, numbers: int, text: int, seed: int) -> None:
    head, weights = randomized(L1Head(numbers, text), seed)
    hidden = np.random.default_rng(seed).standard_normal((2, chunk * numbers, text))
    inner = {name.removeprefix("model."): value for name, value in weights.items()}
    expected = resnet(hidden, inner, numbers=numbers)
    with torch.no_grad():
        ours = head(torch.tensor(hidden, dtype=torch.float32))
    assert ours.shape == (2, chunk, numbers)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@given(**sizes)
@settings(max_examples=15)
def test_a_diffusion_head_is_the_same_network(chunk: int, numbers: int, text: int, seed: int) -> None:
    head, weights = randomized(DiffusionHead(numbers, text), seed)
    hidden = np.random.default_rng(seed).standard_normal((2, chunk * numbers, text))
    inner = {name.removeprefix("noise_predictor.mlp_resnet."): value for name, value in weights.items()}
    expected = resnet(hidden, inner, numbers=numbers)
    with torch.no_grad():
        ours = head(torch.tensor(hidden, dtype=torch.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@given(numbers=st.integers(1, 14), text=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_a_projector_has_two_layers_with_the_exact_gelu_between(numbers: int, text: int, seed: int) -> None:
    projector, weights = randomized(NumbersProjector(numbers, text), seed)
    values = torch.tensor(np.random.default_rng(seed).standard_normal((3, numbers)))
    inner = torch.tensor(linear(values.numpy(), weights, "fc1"))
    gelu = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
    with torch.no_grad():
        ours = projector(values)
    np.testing.assert_allclose(ours, linear(gelu.numpy(), weights, "fc2"), rtol=1e-3, atol=1e-4)


def test_a_head_computes_in_the_dtype_of_its_weights() -> None:
    head = L1Head(2, 4).to(torch.bfloat16)
    assert head(torch.zeros(1, 6, 4)).dtype == torch.bfloat16


# Diffusion


@given(count=st.integers(1, 50), chunk=st.integers(1, 9), numbers=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_sampling_is_plain_ddim(count: int, chunk: int, numbers: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, noises = rng.standard_normal((2, chunk, numbers)), list(rng.standard_normal((count, 2, chunk, numbers)))
    sampler, ours = DDIM(), torch.tensor(x)
    assert len(sampler.timesteps(count)) == count
    for time, noise in zip(sampler.timesteps(count), noises, strict=True):
        ours = sampler.step(ours, torch.tensor(noise), time, count=count)
    np.testing.assert_allclose(ours, sampled(x, noises), atol=1e-5)
    assert ours.abs().max() <= 1  # the last step returns clean actions


@given(time=st.integers(0, 49), seed=st.integers(0, 99))
def test_the_noise_that_was_added_is_removed_by_one_estimate(time: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    actions, noise = torch.tensor(rng.uniform(-1, 1, (3, 2, 4))), torch.tensor(rng.standard_normal((3, 2, 4)))
    times, sampler = torch.full((3,), time), DDIM()
    noisy = sampler.noisy(actions, noise, times)
    left = alphas(50)[time]
    np.testing.assert_allclose(noisy, np.sqrt(left) * actions + np.sqrt(1 - left) * noise, atol=1e-5)
    np.testing.assert_allclose(sampler.clean(noisy, noise, times), actions, atol=1e-3)


@pytest.mark.parametrize(("count", "first", "last"), [(50, 49, 0), (10, 45, 0), (3, 32, 0), (1, 0, 0)])
def test_timesteps_are_spaced_evenly_and_end_at_0(count: int, first: int, last: int) -> None:
    times = DDIM().timesteps(count)
    assert (times[0], times[-1]) == (first, last)
    assert len(set(np.diff(times))) <= 1


@given(time=st.integers(0, 49), half=st.integers(2, 32))
def test_a_timestep_is_embedded_as_sines_then_cosines(time: int, half: int) -> None:
    ours = timestep_embedding(torch.tensor([time]), 2 * half)[0]
    angles = time * np.exp(-np.arange(half) * np.log(10_000) / (half - 1))
    np.testing.assert_allclose(ours, np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-5)
