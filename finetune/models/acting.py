"""Predicts actions from images and instructions, for `predict_action`, `oxe predict` and `oxe eval`.

The processor converts images and instructions to the model's inputs. The model predicts tokens, which are decoded to
normalized actions. The dataset's statistics convert these to its units. What a robot should not do is an error: tokens
that are not actions, and actions beyond any physical size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from finetune.actions import check_physical, unnormalized
from finetune.models.decoding import decode
from finetune.models.images import as_evaluated, as_trained
from schemas.errors import CheckpointError, StatsError, UsageError, did_you_mean
from schemas.source import Array
from stats.formats import norms
from stats.norm import NEEDS, Method, NormStats

METHOD: Method = "bounds_q99"  # the normalization that OpenVLA policies invert


@dataclass(frozen=True, slots=True)
class Prediction:
    """An action [A] float64 in the units of the dataset, and the tokens from which it was decoded, [A] int64.

    `not_actions` counts the tokens that are not actions. Their numbers are in the middle of their dimensions' bounds.
    """

    action: Array
    token_ids: Array
    not_actions: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the action and the tokens as lists, and the count of tokens that are not actions if there are any."""
        counted = {"not_actions": self.not_actions} if self.not_actions else {}
        return {"action": self.action.tolist(), "token_ids": self.token_ids.tolist(), **counted}


@dataclass(frozen=True, slots=True)
class ActionStatistics:
    """The statistics of a checkpoint's actions, by dataset."""

    known: Mapping[str, NormStats]
    where: str

    @classmethod
    def of(cls, norm_stats: Any, *, where: str) -> Self:
        """Parse a checkpoint's statistics. Raises CheckpointError if there are none or they are not valid."""
        if not norm_stats:
            files = "dataset_statistics.json or norm_stats in config.json"
            raise CheckpointError(f"{where}: no statistics to un-normalize actions; add {files}")
        try:
            statistics = norms(norm_stats, where=where)
        except StatsError as error:
            raise CheckpointError(str(error)) from error
        known = {name: vectors["action"] for name, vectors in statistics.items() if "action" in vectors}
        for name, entry in norm_stats.items():
            if isinstance(entry, dict) and "action" in entry and name not in known:
                raise CheckpointError(f"{where}: {name}: action: {' and '.join(NEEDS[METHOD])} are missing")
        for name, norm in known.items():
            for key in NEEDS[METHOD]:
                figures = getattr(norm, key)
                if figures is None or figures.ndim != 1:
                    what = "is missing" if figures is None else f"must be {len(norm.names)} numbers, not lists of them"
                    raise CheckpointError(f"{where}: {name}: action: {key} {what}")
        return cls(known, where)

    def named(self, key: str | None) -> NormStats:
        """Return the statistics of dataset `key`, which may be None if there is only one.

        Raises UsageError if the dataset is unknown, or if `key` is None and there are several.
        """
        if key is None and len(self.known) == 1:
            return next(iter(self.known.values()))
        if key is None:
            known = ", ".join(sorted(self.known))
            raise UsageError(f"{self.where}: unnorm_key is required: there are {len(self.known)} datasets ({known})")
        if key not in self.known:
            raise UsageError(f"{self.where}: no statistics for '{key}'{did_you_mean(key, self.known)}")
        return self.known[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model that predicts actions, and the statistics that convert them to a dataset's units.

    `center_crop` decides whether images are cropped to their middle. If None, the setting from training is used. If
    `lenient`, predicted tokens that are not actions are counted, otherwise they are an error.
    """

    model: Any  # an OpenVLAForActionPrediction
    statistics: ActionStatistics
    center_crop: bool | None = None
    lenient: bool = False

    def act(
        self, images: Sequence[Any], instructions: Sequence[str], *, unnorm_key: str | None = None
    ) -> list[Prediction]:
        """Predict an action for each pair of an image and an instruction.

        An image is the bytes of an image file, a PIL image, or an array [H, W, 3] uint8.
        """
        return self.predict(self.inputs([self.seen(image) for image in images], instructions), unnorm_key=unnorm_key)

    def seen(self, image: Any) -> Any:
        """Preprocess an image in the same way as in training.

        If the checkpoint does not contain its preprocessing, the image is returned unchanged, or with `center_crop`,
        preprocessed as in OpenVLA's evaluations.
        """
        if self.model.preprocessing is not None:
            return as_trained(image, self.model.preprocessing.acting(center_crop=self.center_crop))
        return as_evaluated(image) if self.center_crop else image

    def inputs(self, seen: Sequence[Any], instructions: Sequence[str]) -> dict[str, Tensor]:
        """Return the model's inputs for preprocessed images and their instructions."""
        return dict(self.model.own_processor().inputs(seen, instructions).to(self.model.device))

    def predict(self, inputs: Mapping[str, Tensor], *, unnorm_key: str | None = None) -> list[Prediction]:
        """Predict one token for each number of an action, and convert them to the units of dataset `unnorm_key`.

        Raises CheckpointError if a token is not an action, unless the policy is lenient, or if a number is not finite
        or beyond any physical size.
        """
        if inputs.get("input_ids") is None or inputs.get("pixel_values") is None:
            raise UsageError("input_ids and pixel_values are required: call predict_action(**processor(prompt, image))")
        norm = self.statistics.named(unnorm_key)
        ids = self.tokens(inputs, numbers=len(norm.names))
        is_action = self.model.config.action_tokenizer.is_action(ids)
        if not (self.lenient or is_action.all()):
            self._refuse(ids[~is_action][0], dimension=int(np.argwhere(~is_action)[0][1]))
        actions = unnormalized(self.model.config.action_tokenizer, ids, norm)
        check_physical(actions, norm, where=self.statistics.where)
        counts = (~is_action).sum(axis=1)
        return [Prediction(*row) for row in zip(actions, ids, counts.tolist(), strict=True)]

    def _refuse(self, token: int, *, dimension: int) -> None:
        """Raise CheckpointError for a token that is not an action."""
        processor = self.model.processor
        word = "" if processor is None else f", {processor.tokenizer.decode([int(token)])!r}"
        raise CheckpointError(
            f"{self.statistics.where}: the model predicted a token that is not an action for dimension {dimension} "
            f"({token}{word}): it may not be trained enough, or not for this instruction; --lenient (lenient=True) "
            "counts such tokens and puts the dimension in the middle of its range"
        )

    def tokens(self, inputs: Mapping[str, Tensor], *, numbers: int) -> Array:
        """Predict `numbers` tokens for each sample, [B, numbers] int64. Each is predicted from those before it."""
        return decode(self.model, **inputs, steps=numbers).ids.cpu().numpy()
