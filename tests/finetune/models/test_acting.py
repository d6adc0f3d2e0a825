"""A prediction of OpenVLA-OFT does not depend on the other observations of its batch; equal seeds, equal chunks."""

from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.oft_fixtures import PLATFORMS, Case, images, load, meta, model, reference, variant

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.acting import Sampling  # noqa: E402 - only where torch is
from finetune.models.parallel_decoding import check_attention, with_placeholders  # noqa: E402

QUICK = 5  # steps of diffusion
TOLERANCE = {"libero": 1e-5, "aloha": 1e-5, "bridge": 1e-3}  # diffusion clips, which makes rounding errors grow


def observations(platform: str, count: int) -> dict[str, Any]:
    """Return observations with prompts of different lengths and different images, as arguments of `predict_action`."""
    seen, rows = images(platform, meta(platform)["num_images"]), range(count)
    return {
        "image": [[seen[(i + j) % len(seen)].rotate(90 * i) for j in range(len(seen))] for i in rows],
        "instruction": meta(platform)["instructions"][:count],
        "proprio": reference(platform)["proprio_raw"][:count],
    }


def one(batch: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: value[i] for key, value in batch.items()}


@pytest.mark.parametrize(
    ("platform", "attention"),
    [*((platform, "sdpa") for platform in PLATFORMS), pytest.param("aloha", "eager", marks=pytest.mark.slow)],
)
def test_a_batch_predicts_what_each_observation_predicts_alone(platform: str, attention: str) -> None:
    vla, batch = model(platform, attention), observations(platform, 3)
    options = {"seed": 7, "diffusion_steps": QUICK} if platform == "bridge" else {}
    together = vla.predict_action(**batch, **options)
    assert together.shape == (3, vla.oft.chunk, len(vla.oft.actions))
    alone = [vla.predict_action(**one(batch, i), **options) for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=TOLERANCE[platform], rtol=0)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


@pytest.mark.parametrize("platform", ["libero", pytest.param("aloha", marks=pytest.mark.slow)])
def test_a_batch_of_tokens_predicts_what_each_observation_predicts_alone(platform: str) -> None:
    vla, batch = variant(model(platform), head="discrete", proprio=()), observations(platform, 2)
    del batch["proprio"]
    together = vla.policy.act(batch["image"], batch["instruction"])
    for i, prediction in enumerate(together):
        (alone,) = vla.policy.act(batch["image"][i : i + 1], batch["instruction"][i : i + 1])
        np.testing.assert_array_equal(prediction.token_ids, alone.token_ids)
        np.testing.assert_array_equal(prediction.action, alone.action)


def test_inputs_of_the_processor_give_the_same_as_images_and_instructions() -> None:
    vla, batch = model("libero"), observations("libero", 2)
    inputs = vla.own_processor().inputs(batch["image"], batch["instruction"])
    together = vla.predict_action(**inputs, proprio=batch["proprio"])
    np.testing.assert_array_equal(together, vla.predict_action(**batch))


def test_a_chunk_of_one_observation_has_two_dimensions_also_if_it_has_one_action() -> None:
    case = Case("libero", "l1_proprio_multi")
    vla = load("libero", chunk=1)
    chunk = case.predict(vla)
    assert chunk.shape == (1, 7)
    assert chunk.dtype == np.float64
    (prediction,) = vla.policy.act([case.images], [case.instruction], proprio=case.proprio)
    assert prediction.to_json() == {"action": chunk.tolist()}


# Diffusion


def test_the_noise_of_the_reference_gives_its_action_in_any_form() -> None:
    case = Case("bridge", "diffusion_T10")
    noise = reference("bridge")["diffusion_T10.noise"]
    ours = case.predict(model("bridge"), noise=noise[0].tolist())
    np.testing.assert_allclose(ours, reference("bridge")["diffusion_T10.actions"], atol=1e-3)
    for form in (noise, noise[0], noise[0].tolist(), torch.tensor(noise[0])):
        np.testing.assert_array_equal(Sampling(noise=form).drawn((1, 5, 7)), noise)


def test_equal_seeds_give_equal_chunks_and_no_seed_gives_another_each_time() -> None:
    case, vla = Case("bridge", "diffusion_T10"), model("bridge")
    quick = {"noise": None, "diffusion_steps": 2}
    first, again, other = (case.predict(vla, **quick, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    state = torch.random.get_rng_state()
    assert np.abs(case.predict(vla, **quick) - case.predict(vla, **quick)).max() > 1e-3
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's random numbers are not used


def test_the_noise_of_a_seed_is_standard_and_the_same_for_each_observation() -> None:
    noise = Sampling(seed=3).drawn((2, 50, 14))
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(noise[:1], Sampling(seed=3).drawn((1, 50, 14)))
    assert abs(float(noise.mean())) < 0.1
    assert abs(float(noise.std()) - 1) < 0.1
    free = Sampling().drawn((2, 5, 7))
    assert not torch.equal(free[0], free[1])


@pytest.mark.parametrize("steps", [None, 1, 50])
def test_the_number_of_steps_is_by_default_that_of_the_training(steps: int | None) -> None:
    assert Sampling(steps=steps).count == (steps or 50)
    assert Sampling(steps=steps).is_set == (steps is not None)


# Proprios


def test_a_proprio_is_normalized_as_in_training_and_clipped() -> None:
    norm = model("libero").policy.statistics.proprio(None)
    assert norm.q01 is not None
    assert norm.q99 is not None
    ours = model("libero").policy.normalized_proprio([norm.q01, norm.q99, norm.q99 * 0 + 1e6], None, count=3)
    np.testing.assert_allclose(ours, np.array([[-1] * 8, [1] * 8, [1] * 8]), atol=1e-4)


def test_a_batch_needs_a_proprio_for_each_observation() -> None:
    batch = observations("libero", 2)
    with pytest.raises(
        UsageError, match=r"proprio: expected 8 finite numbers for each of 2 observations, got \[1, 8\]"
    ):
        model("libero").predict_action(**{**batch, "proprio": batch["proprio"][0]})


# Tokens that are not actions, and outputs that are not finite


def test_an_output_that_is_not_finite_is_refused() -> None:
    vla = load("libero")
    with torch.no_grad():
        vla.action_head.model.fc2.bias[0] = torch.nan
    with pytest.raises(CheckpointError, match="the output for this observation is not finite; use another --dtype"):
        Case("libero", "l1_proprio_multi").predict(vla)


def test_statistics_of_another_training_are_refused_when_predicting() -> None:
    vla = variant(model("libero"), actions=tuple("abcdef"))
    with pytest.raises(CheckpointError, match="the head predicts 6 numbers, an action of this dataset has 7"):
        Case("libero", "l1_proprio_multi").predict(vla)


# Sequences


def test_placeholders_follow_the_prompt_and_padding_is_on_the_right() -> None:
    ids, mask = torch.tensor([[1, 5, 6, 29871], [1, 29871, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ids, mask, tail = with_placeholders(ids, mask, size=3, stop=2, pad=9)
    assert ids.tolist() == [[1, 5, 6, 29871, 1, 1, 1, 2], [1, 29871, 1, 1, 1, 2, 9, 9]]
    assert mask.tolist() == [[1] * 8, [1] * 6 + [0] * 2]
    assert tail.tolist() == [[4, 5, 6, 7], [2, 3, 4, 5]]


def test_an_instruction_and_a_chunk_longer_than_the_model_accepts_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the model accepts 2048 \(both count the 513 of the image"):
        model("libero").predict_action(images("libero", 2), "pick " * 2000, proprio=[0.0] * 8)


@pytest.mark.parametrize("kind", ["flex_attention", "paged_attention", "flash_attention_9"])
def test_attention_that_can_only_be_causal_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(
        UsageError, match=f"attention '{kind}': cannot be used with parallel decoding, because it is ca"
    ):
        check_attention(kind)


@pytest.mark.parametrize("kind", ["sdpa", "eager", "flash_attention_2"])
def test_attention_that_need_not_be_causal_is_accepted(kind: str) -> None:
    check_attention(kind)
