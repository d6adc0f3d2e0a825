"""The one path from what a policy sees to what it does: `predict_action`, `oxe predict` and `oxe eval` all take it.

Images and instructions become inputs of the model, the model answers in tokens, and statistics give these units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from finetune.actions import NO_EPS
from finetune.models.decoding import decode
from finetune.models.images import as_evaluated, as_trained
from schemas.errors import CheckpointError, StatsError, UsageError, did_you_mean
from schemas.source import Array
from stats.formats import norms
from stats.norm import NormStats


@dataclass(frozen=True, slots=True)
class Prediction:
    """An action [A] float64 in the units of its statistics, and the tokens that it was decoded from, [A] int64."""

    action: Array
    token_ids: Array

    def to_json(self) -> dict[str, Any]:
        """Give both as lists."""
        return {"action": self.action.tolist(), "token_ids": self.token_ids.tolist()}


@dataclass(frozen=True, slots=True)
class ActionStatistics:
    """The statistics of a checkpoint's actions, by dataset."""

    known: Mapping[str, NormStats]
    where: str

    @classmethod
    def of(cls, norm_stats: Any, *, where: str) -> Self:
        """Understand what the checkpoint says; without any statistics no action can be told."""
        if not norm_stats:
            files = "dataset_statistics.json or norm_stats in config.json"
            raise CheckpointError(f"{where}: no statistics, so its actions mean nothing; add {files}")
        try:
            found = norms(norm_stats, where=where)
        except StatsError as error:
            raise CheckpointError(str(error)) from error
        return cls({name: vectors["action"] for name, vectors in found.items() if "action" in vectors}, where)

    def named(self, key: str | None) -> NormStats:
        """Give one dataset's; the name may be left out where there is but one."""
        if key is None and len(self.known) == 1:
            return next(iter(self.known.values()))
        if key is None:
            known = ", ".join(sorted(self.known))
            raise UsageError(f"{self.where}: unnorm_key is missing: actions of {len(self.known)} datasets ({known})")
        if key not in self.known:
            raise UsageError(f"{self.where}: no statistics of '{key}'{did_you_mean(key, self.known)}")
        return self.known[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model that acts, and the statistics that its actions get their units from.

    `center_crop` says whether it sees the middle of an image, whatever its training did; None: as its training did.
    """

    model: Any  # an OpenVLAForActionPrediction
    statistics: ActionStatistics
    center_crop: bool | None = None

    def act(
        self, images: Sequence[Any], instructions: Sequence[str], *, unnorm_key: str | None = None
    ) -> list[Prediction]:
        """Predict an action for each image, which is encoded, PIL's or [H, W, 3] uint8, and its instruction."""
        return self.predict(self.inputs([self.seen(image) for image in images], instructions), unnorm_key=unnorm_key)

    def seen(self, image: Any) -> Any:
        """Show an image as in the training, if the checkpoint says how; else as it is, or cropped as if evaluated."""
        if self.model.preprocessing is not None:
            return as_trained(image, self.model.preprocessing.acting(center_crop=self.center_crop))
        return as_evaluated(image) if self.center_crop else image

    def inputs(self, seen: Sequence[Any], instructions: Sequence[str]) -> dict[str, Tensor]:
        """Make the model's inputs of images that are as they are to be seen."""
        return dict(self.model.own_processor().inputs(seen, instructions).to(self.model.device))

    def predict(self, inputs: Mapping[str, Tensor], *, unnorm_key: str | None = None) -> list[Prediction]:
        """Predict as many tokens as the dataset's action has numbers, and un-normalize."""
        if inputs.get("input_ids") is None or inputs.get("pixel_values") is None:
            raise UsageError("input_ids and pixel_values are missing: give predict_action(**processor(prompt, image))")
        norm = self.statistics.named(unnorm_key)
        ids = self.tokens(inputs, numbers=len(norm.names))
        actions = norm.unnormalize(self.model.config.action_tokenizer.decode(ids), eps=NO_EPS)
        return [Prediction(*pair) for pair in zip(actions, ids, strict=True)]

    def tokens(self, inputs: Mapping[str, Tensor], *, numbers: int) -> Array:
        """Predict the tokens of `numbers` numbers, [B, numbers] int64, each from those before it."""
        return decode(self.model, **inputs, steps=numbers).ids.cpu().numpy()
