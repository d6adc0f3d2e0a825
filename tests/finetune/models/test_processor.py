"""Prompts become the tokens of the original, alone and together."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.vla import BASE, INSTRUCTIONS, PROMPTS, image, reference

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.images import ImageTransform  # noqa: E402 - only where torch is
from finetune.models.processor import PrismaticProcessor, prompt  # noqa: E402


@pytest.fixture(scope="module")
def processor() -> PrismaticProcessor:
    return PrismaticProcessor.from_pretrained(BASE)


@pytest.mark.parametrize("i", range(4))
def test_an_instruction_becomes_the_prompt_and_the_tokens_of_the_original(
    i: int, processor: PrismaticProcessor
) -> None:
    assert prompt(INSTRUCTIONS[i]) == PROMPTS[i]
    found = processor(PROMPTS[i], image(i))
    np.testing.assert_array_equal(found["input_ids"], reference()[f"input_ids_{i}"])
    assert found["attention_mask"].all()


def test_a_space_at_the_end_is_one_token_more(processor: PrismaticProcessor) -> None:
    found = processor(PROMPTS[0] + " ", image(0))["input_ids"]
    np.testing.assert_array_equal(found, reference()["input_ids_trailing_space"])


def test_a_batch_is_padded_on_the_right(processor: PrismaticProcessor) -> None:
    found = processor(PROMPTS, [image(i) for i in range(4)])
    assert found["pixel_values"].shape == (4, 6, 224, 224)
    for i in range(4):
        alone = reference()[f"input_ids_{i}"][0]
        assert found["input_ids"][i, : len(alone)].tolist() == alone.tolist()
        assert found["input_ids"][i, len(alone) :].tolist() == [32000] * (23 - len(alone))
        assert found["attention_mask"][i].sum() == len(alone)


def test_inputs_move_and_change_their_type_as_transformers_own_do(processor: PrismaticProcessor) -> None:
    found = processor(PROMPTS[0], image(0)).to("cpu", dtype=torch.bfloat16)
    assert found["pixel_values"].dtype == torch.bfloat16
    assert found["input_ids"].dtype == torch.int64


def test_a_processor_made_in_memory_is_written_and_read(processor: PrismaticProcessor, tmp_path: Path) -> None:
    made = PrismaticProcessor(ImageTransform.of({}), processor.tokenizer)
    made.save_pretrained(tmp_path / "new")
    again = PrismaticProcessor.from_pretrained(tmp_path / "new")
    assert again.image_processor == made.image_processor
    assert again(PROMPTS[0], image(0))["input_ids"].tolist() == reference()["input_ids_0"].tolist()


@pytest.mark.parametrize(
    ("instruction", "message"), [("", "is empty"), (" \n", "is empty"), (None, "must be a text"), (3, "must be a text")]
)
def test_an_empty_instruction_is_refused(instruction: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"the instruction {message}"):
        prompt(instruction)


def test_as_many_images_as_prompts_are_needed(processor: PrismaticProcessor) -> None:
    with pytest.raises(UsageError, match="2 prompts, 1 images"):
        processor(PROMPTS[:2], image(0))
    with pytest.raises(UsageError, match="expected 'pt'"):
        processor(PROMPTS[0], image(0), return_tensors="np")


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "checkpoint")
    (tmp_path / "checkpoint/tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be read"):
        PrismaticProcessor.from_pretrained(tmp_path / "checkpoint")
    (tmp_path / "checkpoint/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer: tokenizer\.json was not found"):
        PrismaticProcessor.from_pretrained(tmp_path / "checkpoint")


# Several images


def test_a_list_of_images_with_one_text_is_one_observation(processor: PrismaticProcessor) -> None:
    together = processor(PROMPTS[0], [image(0), image(1), image(2)])
    assert together["input_ids"].shape[0] == 1
    alone = [processor(PROMPTS[0], image(i))["pixel_values"] for i in range(3)]
    assert torch.equal(together["pixel_values"], torch.cat(alone, dim=1))
    assert torch.equal(processor(PROMPTS[0], (image(0),))["pixel_values"], alone[0])


def test_lists_of_texts_and_lists_of_lists_are_a_batch(processor: PrismaticProcessor) -> None:
    together = processor(PROMPTS[:2], [[image(0), image(1)], [image(2), image(3)]])
    assert together["pixel_values"].shape == (2, 12, 224, 224)
    for i in range(2):
        alone = processor(PROMPTS[i], [image(2 * i), image(2 * i + 1)])
        assert torch.equal(together["pixel_values"][i : i + 1], alone["pixel_values"])
        length = alone["input_ids"].shape[1]
        assert torch.equal(together["input_ids"][i, :length], alone["input_ids"][0])
        assert int(together["attention_mask"][i].sum()) == length
    single = processor(PROMPTS[:2], [image(0), [image(1)]])
    assert single["pixel_values"].shape == (2, 6, 224, 224)
    assert torch.equal(
        processor(PROMPTS[:1], [[image(0)]])["pixel_values"], processor(PROMPTS[0], image(0))["pixel_values"]
    )


def test_observations_must_match_their_texts_and_one_another(processor: PrismaticProcessor) -> None:
    with pytest.raises(UsageError, match="2 prompts, 1 images: expected one image for each prompt"):
        processor(PROMPTS[:2], [[image(0), image(1)]])
    with pytest.raises(UsageError, match="1 prompts, 2 images: expected one image for each prompt"):
        processor(PROMPTS[:1], [image(0), image(1)])
    with pytest.raises(UsageError, match="the observations of a batch need the same number of images, got 2, 1"):
        processor(PROMPTS[:2], [[image(0), image(1)], [image(2)]])
    for nothing in ([], [[]]):
        with pytest.raises(UsageError, match="an observation needs at least one image"):
            processor(PROMPTS[0] if nothing == [] else PROMPTS[:1], nothing)
