"""Converts images and instructions to the model's inputs, in training and in prediction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerFast

from finetune.models import checkpoint
from finetune.models.images import ImageTransform
from schemas.errors import CheckpointError, UsageError
from schemas.files import durable

PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
FILES = (
    PREPROCESSOR,
    TOKENIZER,
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def prompt(instruction: str) -> str:
    r"""Return OpenVLA's prompt for an instruction. Raises UsageError if it is empty or not valid UTF-8.

    >>> prompt("Close the pot")
    'In: What action should the robot take to close the pot?\nOut:'
    """
    if not isinstance(instruction, str):
        raise UsageError(f"the instruction must be a text, got {type(instruction).__name__}")
    if not instruction.strip():
        raise UsageError("the instruction is empty: describe what the robot should do")
    try:
        instruction.encode()
    except UnicodeEncodeError as error:  # Python reads the bytes of an argument that are not UTF-8 as surrogates
        raise UsageError(
            f"the instruction is not valid UTF-8 (character {error.start + 1}): encode it as UTF-8"
        ) from error
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


def _listed(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]


class PrismaticProcessor:
    """A tokenizer and an image transform, under the original class name.

    `files` are the processor files of a checkpoint, by name. They are saved again without changes, so that the original
    code can read them. If there are none, `save_pretrained` creates them.
    """

    def __init__(
        self, image_processor: ImageTransform, tokenizer: Any, *, files: Mapping[str, bytes] | None = None
    ) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.files = dict(files or {})

    def __call__(self, text: str | Sequence[str], images: Any, *, return_tensors: str = "pt", **_: Any) -> BatchFeature:
        """Return input_ids and attention_mask [B, L], padded on the right, and pixel_values [B, 6n, 224, 224].

        A list of images with one text is one observation of n images. With a list of texts, `images` has one
        observation for each: an image, or a list of n images.
        """
        if return_tensors != "pt":
            raise UsageError(f"return_tensors: expected 'pt', got '{return_tensors}'")
        texts = [text] if isinstance(text, str) else list(text)
        observations = [images] if isinstance(text, str) else _listed(images)
        if len(texts) != len(observations):
            raise UsageError(f"{len(texts)} prompts, {len(observations)} images: expected one image for each prompt")
        if not all(len(_listed(seen)) for seen in observations):
            raise UsageError("an observation needs at least one image")
        pixels = [np.concatenate([self.image_processor(one) for one in _listed(seen)]) for seen in observations]
        if len({len(each) for each in pixels}) > 1:
            counts = ", ".join(str(len(_listed(seen))) for seen in observations)
            raise UsageError(f"the observations of a batch need the same number of images, got {counts}")
        tokens = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", verbose=False)
        named = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        return BatchFeature({**named, "pixel_values": torch.from_numpy(np.stack(pixels))})

    def inputs(self, images: Sequence[Any], instructions: Sequence[str]) -> BatchFeature:
        """Return the model's inputs for observations, each an image or a list of images, and their instructions."""
        return self([prompt(instruction) for instruction in instructions], list(images))

    def check_fits(self, config: Any) -> None:
        """Raise CheckpointError if the number of words differs from the model's, because actions would be wrong."""
        size, expected = self.tokenizer.vocab_size, config.action_vocab
        if size != expected:
            raise CheckpointError(
                f"the tokenizer has {size} words, the model expects {expected} "
                f"(vocab_size {config.text_config.vocab_size} less pad_to_multiple_of {config.pad_to_multiple_of}): "
                "use the tokenizer of this checkpoint"
            )

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether a folder has a processor's files."""
        return (folder / PREPROCESSOR).exists() and (folder / TOKENIZER).exists()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Read the processor of a checkpoint."""
        folder = checkpoint.local_folder(pretrained_model_name_or_path, kwargs)
        if not (folder / TOKENIZER).exists():
            raise CheckpointError(
                f"{folder}: no tokenizer: {TOKENIZER} was not found; name a folder that contains it (--processor)"
            )
        images = ImageTransform.of(checkpoint.read_json(folder / PREPROCESSOR), where=str(folder / PREPROCESSOR))
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        except Exception as error:  # the parser of tokenizers raises plain Exceptions
            raise CheckpointError(f"{folder}: the tokenizer cannot be read ({error})") from error
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
        return cls(images, tokenizer, files=files)

    def save_pretrained(self, save_directory: Any) -> None:
        """Write the processor's files: those from which it was read, or new ones if it was built in memory."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if not self.files:
            self.tokenizer.save_pretrained(folder)
            checkpoint.write_json(folder / PREPROCESSOR, self.image_processor.to_json())
        for name, data in self.files.items():
            durable.write(folder / name, data)
