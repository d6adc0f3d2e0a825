"""Predicts actions from images and instructions, for `predict_action`, `oxe predict` and `oxe eval`.

The processor converts images and instructions to the model's inputs. The model predicts tokens, which are decoded to
normalized actions, or with a head of OpenVLA-OFT, normalized actions. The dataset's statistics convert these to its
units. What a robot should not do is an error: tokens that are not actions, and actions beyond any physical size.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.actions import LARGEST, NO_EPS, check_physical, unnormalized
from finetune.models.action_statistics import ActionStatistics
from finetune.models.decoding import decode
from finetune.models.heads import TRAIN_STEPS
from finetune.models.images import as_evaluated, as_trained
from finetune.models.layouts import check_count, usual_images
from finetune.models.oft import OFTSettings
from finetune.models.parallel_decoding import decode_chunk
from schemas.errors import CheckpointError, UsageError
from schemas.source import Array
from stats.norm import EPS, NormStats

SEEDS = 1 << 32  # the generator of torch ignores the higher bits of a seed


def warn(note: str) -> None:
    """Issue a note as a Python warning."""
    warnings.warn(note, stacklevel=2)


@dataclass(frozen=True, slots=True)
class Prediction:
    """An action [A], or a chunk of actions [K, A], float64 in the units of the dataset.

    `token_ids` are the tokens from which it was decoded, int64 of the same shape; None for continuous heads.
    `not_actions` counts the tokens that are not actions. Their numbers are in the middle of their dimensions' bounds.
    `names` are those of an action's numbers, if the checkpoint records them.
    """

    action: Array
    token_ids: Array | None = None
    not_actions: int = 0
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the action and, if there are any, tokens, count of tokens that are not actions, and names."""
        return {
            "action": self.action.tolist(),
            **({"token_ids": self.token_ids.tolist()} if self.token_ids is not None else {}),
            **({"not_actions": self.not_actions} if self.not_actions else {}),
            **({"names": list(self.names)} if self.names else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the diffusion head samples: from `noise`, or from noise that is drawn with `seed`, in a number of `steps`.

    `noise` is [K, A] or [B, K, A]. A seed gives every observation of a batch the same noise, so that its prediction
    does not depend on the others. If seed and noise are None, the noise differs from call to call.
    """

    noise: Any = None
    seed: int | None = None
    steps: int | None = None  # None: as many as in training

    def __post_init__(self) -> None:
        """Raise UsageError if the seed is not valid."""
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise UsageError(f"seed {self.seed}: expected 0 to {SEEDS - 1}")

    @property
    def is_set(self) -> bool:
        """Whether anything is set."""
        return self.noise is not None or self.seed is not None or self.steps is not None

    @property
    def count(self) -> int:
        """The number of steps. Raises UsageError if the diffusion cannot take as many."""
        count = TRAIN_STEPS if self.steps is None else self.steps
        if not 1 <= count <= TRAIN_STEPS:
            raise UsageError(f"diffusion steps: {count}: expected 1 to {TRAIN_STEPS}, the number of steps in training")
        return count

    def drawn(self, shape: tuple[int, ...]) -> Tensor:
        """Return the noise, [B, K, A] float32."""
        if self.noise is None:
            if self.seed is None:
                generator = torch.Generator()
                generator.seed()
                return torch.randn(shape, generator=generator)
            return torch.randn(shape[1:], generator=torch.Generator().manual_seed(self.seed)).expand(shape)
        try:
            noise = torch.as_tensor(np.asarray(self.noise, np.float32))
        except (TypeError, ValueError) as error:
            raise UsageError(f"noise: expected {list(shape)} finite numbers ({error})") from error
        noise = noise[None] if noise.ndim == 2 else noise
        if tuple(noise.shape) != shape or not noise.isfinite().all():
            raise UsageError(f"noise: expected {list(shape)} finite numbers, got {list(noise.shape)}")
        return noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model that predicts actions, and the statistics that convert them to a dataset's units.

    `center_crop` decides whether images are cropped to their middle. If None, the setting from training is used. If
    `lenient`, predicted tokens that are not actions are counted, otherwise they are an error. `say` gets notes.
    """

    model: Any  # an OpenVLAForActionPrediction
    statistics: ActionStatistics
    center_crop: bool | None = None
    lenient: bool = False
    say: Any = None

    def act(
        self,
        images: Sequence[Any],
        instructions: Sequence[str],
        *,
        unnorm_key: str | None = None,
        proprio: Any = None,
        sampling: Sampling | None = None,
    ) -> list[Prediction]:
        """Predict an action, or a chunk, for each observation and its instruction.

        An observation is an image, or a list of images: the oldest step first, within a step in the order of the
        checkpoint's cameras. An image is the bytes of an image file, a PIL image, or an array [H, W, 3] uint8.
        `proprio` [P] or [B, P] is in the units of dataset `unnorm_key`.
        """
        seen = [[self.seen(image) for image in _listed(images)] for images in images]
        inputs = self.inputs(seen, instructions)
        return self.predict(inputs, unnorm_key=unnorm_key, proprio=proprio, sampling=sampling)

    def seen(self, image: Any) -> Any:
        """Preprocess an image in the same way as in training.

        If the checkpoint does not contain its preprocessing, the image is returned unchanged, or with `center_crop`,
        preprocessed as in OpenVLA's evaluations.
        """
        if self.model.preprocessing is not None:
            return as_trained(image, self.model.preprocessing.acting(center_crop=self.center_crop))
        return as_evaluated(image) if self.center_crop else image

    def inputs(self, seen: Sequence[Any], instructions: Sequence[str]) -> dict[str, Tensor]:
        """Return the model's inputs for preprocessed observations and their instructions."""
        return dict(self.model.own_processor().inputs(seen, instructions).to(self.model.device))

    def predict(
        self,
        inputs: Mapping[str, Tensor],
        *,
        unnorm_key: str | None = None,
        proprio: Any = None,
        sampling: Sampling | None = None,
    ) -> list[Prediction]:
        """Predict actions or chunks for inputs of the processor, in the units of dataset `unnorm_key`.

        Raises CheckpointError if a token is not an action, unless the policy is lenient, or if a number is not finite
        or beyond any physical size. Raises UsageError if images or proprio are not those that the model requires.
        """
        if inputs.get("input_ids") is None or inputs.get("pixel_values") is None:
            raise UsageError("input_ids and pixel_values are required: call predict_action(**processor(prompt, image))")
        norm, sampling = self.statistics.named(unnorm_key), sampling or Sampling()
        oft: OFTSettings | None = self.model.oft
        images = inputs["pixel_values"].shape[1] // 6
        check_count(oft, images, where=self.statistics.where)
        if oft is None:
            if proprio is not None or sampling.is_set:
                raise UsageError("proprio, noise, seed and diffusion steps: only for checkpoints of OpenVLA-OFT")
            return self._of_tokens(self.tokens(inputs, numbers=len(norm.names)), norm)
        if len(oft.actions) != len(norm.names):
            raise CheckpointError(
                f"{self.statistics.where}: the head predicts {len(oft.actions)} numbers, an action of this dataset has "
                f"{len(norm.names)}: the head and the statistics are from different trainings"
            )
        if sampling.is_set and oft.head != "diffusion":
            raise UsageError(
                f"noise, seed and diffusion steps: only for diffusion heads, this is a head of kind {oft.head}"
            )
        usual = usual_images(oft)
        if usual not in {None, images}:
            self._note(
                f"images: {images} for each observation: the checkpoint does not record how many it was trained with, "
                f"but others with these dimensions have {usual} (--image)"
            )
        numbers = self.normalized_proprio(proprio, unnorm_key, count=len(inputs["input_ids"]))
        out = self.chunks(inputs, proprio=numbers, sampling=sampling)
        if oft.head == "discrete":
            return self._of_tokens(out.astype(np.int64), norm)
        actions = norm.unnormalize(out.astype(np.float64))
        check_physical(actions, norm, where=self.statistics.where)
        return [Prediction(action, names=self._names) for action in actions]

    def tokens(self, inputs: Mapping[str, Tensor], *, numbers: int) -> Array:
        """Predict `numbers` tokens for each sample, [B, numbers] int64. Each is predicted from those before it."""
        return decode(self.model, **inputs, steps=numbers).ids.cpu().numpy()

    def chunks(
        self, inputs: Mapping[str, Tensor], *, proprio: Array | None = None, sampling: Sampling | None = None
    ) -> Array:
        """Predict the chunks of an OFT model, [B, K, A]: normalized actions, float32, or the tokens of a discrete head.

        `proprio` [B, P] is normalized.
        """
        oft, size, noise = self.model.oft, len(inputs["input_ids"]), None
        device, sampling = self.model.device, sampling or Sampling()
        if oft.head == "diffusion":
            noise = sampling.drawn((size, oft.chunk, len(oft.actions))).to(device)
        state = None if proprio is None else torch.from_numpy(proprio).to(device)
        out = decode_chunk(self.model, **inputs, proprio=state, noise=noise, steps=sampling.count)
        return out.cpu().numpy().reshape(size, oft.chunk, -1)

    def normalized_proprio(self, proprio: Any, key: str | None, *, count: int) -> Array | None:
        """Normalize proprios [P] or [B, P] as in training, and return [B, P] float32; None if the model takes none.

        Raises UsageError if they have another shape, are not finite, or are missing; the original layout does not
        record whether a proprio is required, so there it is a note.
        """
        oft = self.model.oft
        if proprio is None:
            if oft.proprio:
                self._lacking(
                    "proprio", f"the model was trained with a proprio of {len(oft.proprio)} numbers (--proprio)"
                )
            return None
        if not oft.proprio:
            raise UsageError(f"{self.statistics.where}: proprio: this model was trained without one; leave it out")
        try:
            values = np.atleast_2d(np.asarray(proprio, np.float64))
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"proprio: expected {len(oft.proprio)} numbers ({error})") from error
        is_physical = (np.abs(values) <= LARGEST).all()
        if values.shape != (count, len(oft.proprio)) or not is_physical:
            got = f"{list(values.shape)}{'' if is_physical else f', not all finite and below {LARGEST:g}'}"
            raise UsageError(
                f"proprio: expected {len(oft.proprio)} finite numbers for each of {count} observations, got {got}"
            )
        norm = self.statistics.proprio(key)
        if len(norm.names) != len(oft.proprio):
            raise CheckpointError(
                f"{self.statistics.where}: the statistics of the proprio have {len(norm.names)} numbers, the model "
                f"takes {len(oft.proprio)}"
            )
        return norm.normalize_proprio(values)

    @property
    def _names(self) -> tuple[str, ...]:
        """The names of an action's numbers; empty for the original layout, which does not record them."""
        return self.model.oft.actions if self.model.oft.cameras else ()

    def _lacking(self, what: str, why: str) -> None:
        """Raise UsageError; for the original layout, give a note."""
        if self.model.oft.cameras:
            raise UsageError(f"{self.statistics.where}: {what} is required: {why}")
        self._note(f"no {what}: {why}")

    def _note(self, text: str) -> None:
        if self.say is not None:
            self.say(f"{self.statistics.where}: {text}")

    def _of_tokens(self, ids: Array, norm: NormStats) -> list[Prediction]:
        """Convert tokens [B, A] or [B, K, A] to predictions."""
        tokenizer, oft = self.model.config.action_tokenizer, self.model.oft
        is_action = tokenizer.is_action(ids)
        if not (self.lenient or is_action.all()):
            self._refuse(ids[~is_action][0], dimension=int(np.argwhere(~is_action)[0][-1]))
        actions = unnormalized(tokenizer, ids, norm, eps=EPS if oft else NO_EPS)
        check_physical(actions, norm, where=self.statistics.where)
        counts = (~is_action).reshape(len(ids), -1).sum(axis=1)
        names = self._names if oft else ()
        return [Prediction(*row, names) for row in zip(actions, ids, counts.tolist(), strict=True)]

    def _refuse(self, token: int, *, dimension: int) -> None:
        """Raise CheckpointError for a token that is not an action."""
        processor = self.model.processor
        word = "" if processor is None else f", {processor.tokenizer.decode([int(token)])!r}"
        raise CheckpointError(
            f"{self.statistics.where}: the model predicted a token that is not an action for dimension {dimension} "
            f"({token}{word}): it may not be trained enough, or not for this instruction; --lenient (lenient=True) "
            "counts such tokens and puts the dimension in the middle of its range"
        )


def _listed(images: Any) -> Sequence[Any]:
    return images if isinstance(images, list | tuple) else [images]
