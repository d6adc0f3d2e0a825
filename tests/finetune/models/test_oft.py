"""Models of OpenVLA-OFT compute what the original computes, and each likely mistake would be seen."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.oft_fixtures import (
    PLATFORMS,
    Case,
    batch,
    cases,
    computed,
    is_off,
    load,
    meta,
    model,
    outputs,
    reference,
    variant,
)

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models import components, heads, parallel_decoding  # noqa: E402 - only where torch is
from finetune.models.acting import Policy  # noqa: E402
from finetune.models.oft import OFTSettings  # noqa: E402

QUICK = ("l1_proprio_multi", "discrete_multi", "diffusion_T10")  # the cases that are also computed with eager attention


# Equality


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_array_is_that_of_the_original(platform: str) -> None:
    ours, theirs = computed(platform, model(platform), [case.name for case in cases(platform)]), reference(platform)
    assert ours.keys() == outputs(platform)  # no array is left out
    assert [name for name in ours if is_off(name, ours[name], theirs[name])] == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_eager_attention_computes_the_same(platform: str) -> None:
    ours, theirs = computed(platform, model(platform, "eager"), QUICK), reference(platform)
    assert {"train.loss", "train.pred_token_ids"} <= ours.keys() < outputs(platform)
    assert [name for name in ours if is_off(name, ours[name], theirs[name])] == []


@pytest.mark.parametrize("platform", ["libero", pytest.param("aloha", marks=pytest.mark.slow), "bridge"])
def test_the_gradients_of_a_step_of_training_are_those_of_the_original(platform: str) -> None:
    vla, given = load(platform).train(), reference(platform)
    for parameter in vla.parameters():
        parameter.requires_grad_(requires_grad=True)
    out = vla.chunk(**batch(platform))
    if platform == "bridge":
        loss = (out - torch.tensor(given["train.noise"])).square().mean()
    else:
        loss = (out - torch.tensor(given["train.actions"])).abs().mean()
    loss.backward()
    ours = {name: float(p.grad.norm()) for name, p in vla.named_parameters() if p.grad is not None}
    theirs = {our_name(name): norm for name, norm in meta(platform)["grad_norms"].items()}
    if platform == "aloha":  # there, the adapters of the language model are merged
        theirs = {name: norm for name, norm in theirs.items() if ".lora_" not in name or "vision_backbone" in name}
    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)


def our_name(name: str) -> str:
    """Return our name of a parameter of the original's training, which wraps some modules."""
    own = name.removeprefix("vla.").replace("vision_backbone.vision_backbone.", "vision_backbone.")
    own = re.sub(r"(blocks\.\d+\.)block\.", r"\1", own)
    return own if "vision_backbone" in own else own.replace(".base_layer", "")


@pytest.mark.parametrize("case", [Case("libero", "l1_proprio_multi"), Case("aloha", "l1_proprio_multi")])
def test_bfloat16_is_near_the_original(case: Case) -> None:
    vla = load(case.platform, dtype=torch.bfloat16)
    assert {vla.action_head.model.fc1.weight.dtype, vla.dtype} == {torch.bfloat16}
    assert vla.proprio_projector.fc1.weight.dtype == torch.float32  # as in its file
    expected = reference(case.platform)[f"{case.name}.actions"]
    assert np.abs(case.predict(vla) - expected).mean() < 0.1 * np.ptp(expected, axis=0).mean()


# Mistakes: each changes the actions of some case by more than the tolerance


def misses(case: Case, vla: Any = None, **changes: Any) -> bool:
    """Whether the prediction of a case differs from the original's."""
    name = f"{case.name}.actions"
    return is_off(name, case.predict(vla or model(case.platform), **changes), reference(case.platform)[name])


LIBERO, ALOHA = Case("libero", "l1_proprio_multi"), Case("aloha", "l1_proprio_multi")
BRIDGE, DISCRETE = Case("bridge", "diffusion_T10"), Case("libero", "discrete_multi")


@pytest.mark.parametrize("case", [LIBERO, ALOHA, DISCRETE], ids=lambda case: case.platform + case.name)
def test_a_causal_mask_is_seen(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def causal(_config: Any, _mask: Any, text: Any, *, inserted: int) -> Any:
        length = text.shape[1] + inserted
        return torch.full((length, length), torch.finfo(text.dtype).min).triu(1)[None, None]

    assert not misses(case)
    monkeypatch.setattr(parallel_decoding, "_attention_mask", causal)
    assert misses(case)


@pytest.mark.parametrize("case", [LIBERO, ALOHA])
def test_images_in_another_order_are_seen(case: Case) -> None:
    assert misses(case, images=case.images[::-1])


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("case", [LIBERO, DISCRETE])
def test_hidden_states_of_another_position_are_seen(case: Case, by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = parallel_decoding.hidden
    monkeypatch.setattr(
        parallel_decoding, "hidden", lambda vla, chunk, **more: right(vla, replace(chunk, tail=chunk.tail + by), **more)
    )
    if case is DISCRETE:  # the tokens may then be words, or the stop token
        monkeypatch.setattr(Case, "predict", lenient(Case.predict))
    assert misses(case)


def lenient(predict: Callable[..., Any]) -> Callable[..., Any]:
    return lambda case, vla, **changes: predict(case, vla, **changes, lenient=True)


def test_a_stop_token_among_the_actions_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = parallel_decoding.predicted

    def stopped(*arguments: Any, **more: Any) -> Any:
        logits = right(*arguments, **more)
        logits[:, 3] = 0
        logits[:, 3, 2] = 1
        return logits

    monkeypatch.setattr(parallel_decoding, "predicted", stopped)
    with pytest.raises(CheckpointError, match=r"a token that is not an action for dimension 3 \(2, '</s>'\)"):
        DISCRETE.predict(model("libero"))
    assert misses(DISCRETE, lenient=True)


def test_a_model_without_film_is_seen() -> None:
    assert misses(ALOHA, variant(model("aloha"), film=False))


def test_another_scaling_of_the_adapters_beside_film_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "LARGEST_ALPHA", 20)  # their rank
    assert misses(ALOHA, load("aloha"))


@pytest.mark.parametrize("case", [LIBERO, ALOHA], ids=lambda case: case.platform)
def test_a_proprio_that_is_not_normalized_is_seen(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def raw(_: Policy, proprio: Any, _key: str | None, *, count: int) -> Any:
        return np.float32(proprio).reshape(count, -1)

    monkeypatch.setattr(Policy, "normalized_proprio", raw)
    assert misses(case)


@pytest.mark.parametrize("case", [LIBERO, ALOHA, BRIDGE], ids=lambda case: case.platform)
def test_a_missing_proprio_is_seen(case: Case) -> None:
    assert misses(case, proprio=None)


def test_noise_that_is_computed_again_after_clipping_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = heads.DDIM.step

    def again(self: Any, noisy: Any, noise: Any, timestep: int, *, count: int) -> Any:
        clean = self.clean(noisy, noise, torch.tensor([timestep]))
        alpha = self.alphas[timestep]
        return right(self, noisy, (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt(), timestep, count=count)

    monkeypatch.setattr(heads.DDIM, "step", again)
    assert misses(BRIDGE)


def test_film_without_the_padding_of_a_batch_is_seen() -> None:
    expected, inputs = reference("aloha")["train.predicted_actions"], batch("aloha")
    with torch.no_grad():
        ours = variant(model("aloha"), film_pads=False).chunk(**inputs)
    is_padded = ~inputs["attention_mask"].bool().all(dim=1)
    off = [is_off("train.predicted_actions", ours[i], expected[i]) for i in range(3)]
    assert off == is_padded.tolist() == [True, True, False]


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "l2"}, r"head: unknown value 'l2'. \(known: diffusion, discrete, l1\)"),
        ({"method": "normal"}, "method: expected bounds or bounds_q99, got 'normal'"),
        ({"chunk": 0}, "chunk 0, history 1: expected at least 1 of each"),
        ({"history": 0}, "chunk 8, history 0: expected at least 1 of each"),
        ({"actions": ()}, "expected at least 1 of each"),
        ({"chunk": 5_001, "actions": ("x", "y")}, "chunk 5001: more than 10,000 numbers in a chunk"),
    ],
)
def test_settings_that_no_model_has_are_refused(change: dict[str, Any], message: str) -> None:
    settings = {"head": "l1", "chunk": 8, "method": "bounds_q99", "actions": ("x",)}
    with pytest.raises(CheckpointError, match=message):
        OFTSettings(**{**settings, **change})


def test_settings_are_written_and_read() -> None:
    settings = OFTSettings(
        head="diffusion", chunk=2, method="bounds", actions=("x", "y"), proprio=("j",), cameras=("a", "b"), history=2
    )
    assert OFTSettings.of(settings.to_json(), where="oft.json") == settings
    assert (settings.images, settings.size) == (4, 4)


def test_each_observation_has_a_prompt() -> None:
    inputs = {key: value for key, value in batch("libero").items() if key != "pixel_values"}
    with pytest.raises(UsageError, match="3 prompts, images of 2 observations: expected one of each"):
        model("libero").chunk(**inputs, pixel_values=batch("libero")["pixel_values"][:2])
    with pytest.raises(UsageError, match="pixel_values are required"):
        model("libero")(**inputs)
