"""Actions equal those of the original, one by one and in batches, and nothing wrong is predicted in silence."""

from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.vla import BASE, INSTRUCTIONS, KEYS, PROMPTS, close, image, model, reference

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.action_statistics import ActionStatistics  # noqa: E402
from finetune.models.decoding import check_image_matters, decode, with_prefix  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402 - only where torch is


@pytest.mark.parametrize("i", range(4))
def test_an_action_and_its_tokens_are_those_of_the_original(i: int) -> None:
    (found,) = model().policy.predict(model().processor(PROMPTS[i], image(i)), unnorm_key=KEYS[i])
    np.testing.assert_array_equal(found.token_ids, reference()[f"generated_ids_{i}"][0, -len(found.token_ids) :])
    np.testing.assert_array_equal(found.action, reference()[f"action_{i}"])


@pytest.mark.parametrize("i", range(4))
def test_an_image_and_an_instruction_give_the_same(i: int) -> None:
    action = model().predict_action(image(i), INSTRUCTIONS[i], KEYS[i])
    np.testing.assert_array_equal(action, reference()[f"action_{i}"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_of_unequal_prompts_gives_what_each_gives_alone(attention: str) -> None:
    vla = model(attn_implementation=attention)
    together = vla.processor(PROMPTS, [image(i) for i in range(4)])
    assert not together["attention_mask"].all()
    found = decode(vla, **together, steps=7)
    for i in range(4):
        np.testing.assert_array_equal(found.ids[i], reference()[f"generated_ids_{i}"][0, -7:])
        close(found.logits[i, :, 31744:], reference()[f"scores_action_vocab_{i}"])
    actions = vla.predict_action([image(0), image(2)], [INSTRUCTIONS[0], INSTRUCTIONS[2]], "tiny_bridge")
    np.testing.assert_array_equal(actions, [reference()["action_0"], reference()["action_2"]])


def test_the_towers_run_once_and_each_further_step_reads_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE, self_test=False)
    seen, read = [], []
    vla.vision_backbone.register_forward_hook(lambda *_: seen.append(1))
    vla.language_model.model.layers[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    vla.predict_action(image(0), INSTRUCTIONS[0], KEYS[0])
    assert seen == [1]
    assert read == [277, 1, 1, 1, 1, 1, 1]


def test_the_prompt_ends_with_the_lone_space_and_the_mask_covers_it() -> None:
    ids, mask = torch.tensor([[1, 5, 6], [1, 5, 0], [1, 29871, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0]])
    found, seen = with_prefix(ids, mask, prefix=29871)
    assert found.tolist() == [[1, 5, 6, 29871], [1, 5, 29871, 0], [1, 29871, 0, 0]]
    assert seen.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    again, _ = with_prefix(torch.tensor([[1, 29871]]), torch.tensor([[1, 1]]), prefix=29871)
    assert again.tolist() == [[1, 29871]]
    unchanged, _ = with_prefix(ids, mask, prefix=None)
    assert unchanged is ids


def test_prompts_padded_on_the_left_are_refused() -> None:
    with pytest.raises(UsageError, match="padded on the right"):
        with_prefix(torch.tensor([[0, 1, 5]]), torch.tensor([[0, 1, 1]]), prefix=None)


# Guards


def test_an_unknown_key_is_refused_with_the_known_ones_and_before_weights_are_read() -> None:
    known = r"no statistics for 'widowx_bridge'.*\(known: tiny_bridge, tiny_fractal\)"
    with pytest.raises(UsageError, match=known):
        OpenVLAForActionPrediction.from_pretrained(BASE, unnorm_key="widowx_bridge")
    with pytest.raises(UsageError, match=known):
        model().predict_action(image(0), INSTRUCTIONS[0], "widowx_bridge")


def test_the_key_may_be_left_out_only_where_there_is_one_dataset() -> None:
    with pytest.raises(UsageError, match="unnorm_key is required"):
        model().predict_action(image(0), INSTRUCTIONS[0])
    one = {"tiny_bridge": model().norm_stats["tiny_bridge"]}
    assert ActionStatistics.of(one, where="here").named(None) is not None


@pytest.mark.parametrize("norm_stats", [None, {}, {"a": {}}, {"a": {"action": {"q01": ["x"]}}}, [1]])
def test_statistics_that_say_nothing_are_refused(norm_stats: Any) -> None:
    with pytest.raises(CheckpointError, match=r"statistics|could not convert"):
        ActionStatistics.of(norm_stats, where="config.json")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"do_sample": True}, "not supported"),
        ({"instruction": " "}, "the instruction is empty"),
        ({"instruction": None}, "the instruction is empty"),
        ({"instruction": ["a", "b"]}, "2 prompts, 1 images"),
        ({"image": None}, "got NoneType"),
    ],
)
def test_a_wrong_call_is_refused(told: dict[str, Any], message: str) -> None:
    call = {"image": image(0), "instruction": INSTRUCTIONS[0], "unnorm_key": KEYS[0], **told}
    with pytest.raises(UsageError, match=message):
        model().predict_action(**call)


def test_a_call_without_anything_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="input_ids and pixel_values are required"):
        model().predict_action(unnorm_key=KEYS[0])


# The self-test


def test_the_reference_passes_its_self_test_in_every_type() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        check_image_matters(model(dtype=dtype))


def test_a_model_that_ignores_its_image_is_refused() -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE)
    torch.nn.init.zeros_(vla.projector.fc3.weight)
    with pytest.raises(CheckpointError, match="the image does not change the output"):
        check_image_matters(vla)


def test_a_model_with_broken_numbers_is_refused() -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE)
    torch.nn.init.constant_(vla.projector.fc3.bias, torch.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        check_image_matters(vla)


def test_lenient_puts_a_word_in_the_middle_of_its_range_and_counts_it() -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE, self_test=False)
    with torch.no_grad():
        vla.language_model.lm_head.weight[2] = 10 * vla.language_model.lm_head.weight[31860]
    message = r"a token that is not an action for dimension 0 \(2, '</s>'\).* lenient=True"
    for call in (
        {"image": image(1), "instruction": INSTRUCTIONS[1]},
        dict(vla.processor(PROMPTS[1], image(1))),
    ):
        with pytest.raises(CheckpointError, match=message.replace(" lenient", ".*lenient")):
            vla.predict_action(**call, unnorm_key=KEYS[1])
        action = vla.predict_action(**call, unnorm_key=KEYS[1], lenient=True)
    norm = vla.policy.statistics.named(KEYS[1])
    assert action[0] == (norm.q01[0] + norm.q99[0]) / 2
    with pytest.raises(CheckpointError):
        vla.policy.act([image(1)], [INSTRUCTIONS[1]], unnorm_key=KEYS[1])


def test_a_prompt_longer_than_the_models_positions_is_refused_however_it_comes() -> None:
    long = "close the pot " * 900
    with pytest.raises(UsageError, match=r"an instruction has \d+ tokens, the model accepts 2048"):
        model().predict_action(image(0), long, KEYS[0])
    inputs = model().processor(f"In: {long}", image(0))
    with pytest.raises(UsageError, match="shorten it"):
        model().predict_action(**inputs, unnorm_key=KEYS[0])


@pytest.mark.parametrize(("text", "message"), [("lift \udce4", "not valid UTF-8"), (b"lift", "must be a text")])
def test_an_instruction_that_is_not_a_text_in_utf8_is_refused(text: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model().predict_action(image(0), text, KEYS[0])
