"""What a model is trained on is what the original's collator makes, and so are loss and metrics."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.actions import ActionTokenizer
from finetune.data.assemble import Batch
from schemas.errors import UsageError
from stats.norm import NormStats
from tests.finetune.runs import toy
from tests.finetune.vla import INSTRUCTIONS, image, model, reference

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from finetune.models.openvla import IGNORED  # noqa: E402
from finetune.training.batches import Collator, Inputs  # noqa: E402 - only where torch is
from finetune.training.engine import TrainingEngine, adamw  # noqa: E402
from finetune.training.metrics import Judge, Metrics  # noqa: E402
from finetune.training.parallel import TrainingProcess  # noqa: E402

PAD = 32000


def batch(**changes: Any) -> Batch:
    """Make the reference's three samples, as the loader would hand them out."""
    sized = [image(i).resize((224, 224), Image.Resampling.BICUBIC) for i in (0, 3, 0)]
    seen = np.stack([np.asarray(picture) for picture in sized])[:, None]
    action = reference()["train_actions"][:, None]
    rows = {"draw": np.arange(3), "source": np.array([0, 1, 0]), "episode": np.arange(3), "step": np.arange(3)}
    made = Batch(
        end=3,
        **rows,
        action=action,
        action_is_pad=np.zeros((3, 1), bool),
        action_valid=np.ones((3, 7), bool),
        state=None,
        images={"primary": seen},
        image_is_missing={"primary": np.zeros((3, 1), bool)},
        history_is_pad=np.zeros((3, 1), bool),
        instruction=tuple(INSTRUCTIONS[:3]),
        broken=(),
        substituted=np.zeros(3, bool),
    )
    return replace(made, **changes)


def collated(**changes: Any) -> Inputs:
    vla = model()
    assert vla.processor is not None
    return Collator(processor=vla.processor, config=vla.config, cameras=("primary",))(batch(**changes))


def judge() -> Judge:
    """Judge two sources, one of which moves four times the distance of the other."""
    figures = dict.fromkeys(("mean", "std"), np.ones(7))
    halves = NormStats(
        names=tuple("abcdefg"), mask=np.ones(7, bool), q01=-np.ones(7) / 2, q99=np.ones(7) / 2, **figures
    )
    doubles = replace(halves, q01=-np.ones(7) * 2, q99=np.ones(7) * 2)
    return Judge(("half", "double"), (halves, doubles), ActionTokenizer())


def judged(given: Batch, inputs: Inputs) -> Metrics:
    """Evaluate the reference model on one batch."""
    engine = TrainingEngine(model(), adamw(model(), toy()), toy(), judge(), TrainingProcess(0, 1, torch.device("cpu")))
    return engine.evaluate([(given, inputs)])


# Against the original


def test_tokens_labels_and_mask_are_those_of_the_original() -> None:
    inputs, found = collated(), reference()
    np.testing.assert_array_equal(inputs.input_ids, found["train_batch_input_ids"])
    np.testing.assert_array_equal(inputs.labels, found["train_batch_labels"])
    np.testing.assert_array_equal(inputs.attention_mask.bool(), found["train_batch_attention_mask"])


def test_loss_accuracy_and_l1_are_those_of_the_original() -> None:
    metrics, found = judged(batch(), collated()).summary(), reference()
    assert metrics["loss"] == pytest.approx(float(found["train_loss"]), abs=1e-4)
    assert metrics["token_accuracy"] == pytest.approx(float(found["train_action_accuracy"]))
    assert metrics["l1"] == pytest.approx(float(found["train_l1"]), abs=1e-6)


# The tail


def test_the_tail_is_the_action_and_the_stop() -> None:
    inputs = collated()
    assert inputs.targets.shape == (3, 8)
    assert (inputs.input_ids.gather(1, inputs.tail)[:, -1] == 2).all()
    assert inputs.terms == 24
    assert inputs.uncounted().terms == 0


def test_a_chunk_has_a_token_for_each_number_of_each_action() -> None:
    action = np.repeat(reference()["train_actions"][:, None], 3, axis=1)
    inputs = collated(action=action, action_is_pad=np.zeros((3, 3), bool))
    assert inputs.targets.shape == (3, 3 * 7 + 1)
    np.testing.assert_array_equal(inputs.targets[:, :7], inputs.targets[:, 7:14])


def test_what_was_not_recorded_is_not_learnt() -> None:
    action = np.repeat(reference()["train_actions"][:, None], 2, axis=1)
    is_pad, valid = np.array([[False, True]] * 3), np.ones((3, 7), bool)
    valid[:, 4] = False
    inputs = collated(action=action, action_is_pad=is_pad, action_valid=valid)
    learnt = (inputs.targets != IGNORED)[0].tolist()
    assert learnt == [True] * 4 + [False] + [True] * 2 + [False] * 7 + [True]
    assert (inputs.input_ids.gather(1, inputs.tail) >= 31744).sum() == 3 * 14  # but it is there


def test_what_is_padded_counts_for_nothing() -> None:
    inputs = collated()
    longer = {name: torch.nn.functional.pad(getattr(inputs, name), (0, 5), value=value) for name, value in PADDED}
    padded = Inputs(**longer, pixel_values=inputs.pixel_values, tail=inputs.tail, known=inputs.known)
    assert judged(batch(), padded).summary() == pytest.approx(judged(batch(), inputs).summary(), abs=1e-5)


PADDED = (("input_ids", PAD), ("attention_mask", 0), ("labels", IGNORED))


def test_an_empty_instruction_and_one_that_is_too_long_are_refused() -> None:
    with pytest.raises(UsageError, match="the instruction is empty"):
        collated(instruction=("close the pot", " ", "open it"))
    with pytest.raises(UsageError, match=r"an instruction has \d+ tokens, the model accepts 2048"):
        collated(instruction=("close the pot", "open it " * 2000, "open it"))


# Metrics


def test_metric_errors_are_in_the_units_of_each_source() -> None:
    tokenizer = ActionTokenizer()
    given = batch(action=np.full((3, 1, 7), 0.25, np.float32))
    predicted = tokenizer.encode(np.full((3, 7), 0.75))
    found = judge().summed(judge()(given, predicted), loss=6.0, terms=3).by_source(judge())
    bin_width = 2 / 255
    for name, unit in (("half", 0.5), ("double", 2.0)):
        assert found[name]["l1"] == pytest.approx(0.5, abs=bin_width)
        assert found[name]["dims"]["c"]["l1_metric"] == pytest.approx(0.5 * unit, abs=bin_width / 2 * unit)
        did = unit * tokenizer.decode(tokenizer.encode(0.75))
        assert found[name]["dims"]["c"]["l1_metric"] == pytest.approx(did - unit * 0.25, abs=1e-7)


def test_what_was_not_recorded_is_not_judged() -> None:
    valid = np.ones((3, 7), bool)
    valid[:, 2] = False
    predicted = ActionTokenizer().encode(batch().action[:, 0])
    metrics = judge().summed(judge()(batch(action_valid=valid), predicted), loss=1.0, terms=1)
    assert metrics.count.tolist() == [[2, 2, 0, 2, 2, 2, 2], [1, 1, 0, 1, 1, 1, 1]]
    assert metrics.summary()["token_accuracy"] == 1.0
    assert "c" not in metrics.by_source(judge())["half"]["dims"]


def test_merged_metrics_are_those_of_both_and_survive_their_row() -> None:
    metrics = judged(batch(), collated())
    both = metrics.merge(metrics)
    assert both.summary() == pytest.approx(metrics.summary())
    assert both.count.sum() == 2 * metrics.count.sum()
    again = metrics.unflat(both.flat())
    assert again.summary() == both.summary()
    assert (again.metric == both.metric).all()
