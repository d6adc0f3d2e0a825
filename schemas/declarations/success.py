"""The table `success` of a declaration, which describes how the source records whether an episode succeeded.

The outcome of an episode without such a record is `unknown`.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
from pydantic import model_validator

from schemas.declarations.tables import Model
from schemas.errors import SourceError

Outcome: TypeAlias = Literal["success", "failure", "unknown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class SuccessSpec(Model):
    """The field that records an episode's outcome, and which values mean success.

    Without a condition, the values must be true or false, 1 or 0, or the words `success`, `failure` and `unknown`. With
    a condition, values that meet it mean success and all others mean failure. If the key `failure` is given, only
    values that equal or contain its text mean failure, and the remaining ones mean `unknown`.
    """

    key: str  # path of a per-episode or per-step field
    equals: bool | int | str | None = None
    contains: str | None = None
    at_least: float | None = None
    failure: str | None = None
    step: Literal["last", "any"] = "last"  # which steps of a per-step field must mean success

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return {"key": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(value is not None for value in (self.equals, self.contains, self.at_least)) > 1:
            raise ValueError("has several conditions; use only one of 'equals', 'contains' and 'at_least'")
        if self.failure is not None and not isinstance(self.equals, str) and self.contains is None:
            raise ValueError("failure: requires a text in 'equals' or 'contains'")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether there is no condition."""
        return (self.equals, self.contains, self.at_least) == (None, None, None)

    @property
    def takes(self) -> Literal["text", "number"] | None:
        """The type of values that the condition can compare; None without a condition."""
        if self.is_plain:
            return None
        return "text" if isinstance(self.equals, str) or self.contains is not None else "number"

    def of_steps(self, column: Sequence[Any]) -> Outcome:
        """Return the outcome that the T values of a per-step field record."""
        if self.step == "last":
            return self.of_value(column[-1]) if len(column) else "unknown"
        outcomes = {self.of_value(value) for value in column}
        return next((outcome for outcome in OUTCOMES if outcome in outcomes), "unknown")

    def of_value(self, value: Any) -> Outcome:
        """Return the outcome that one value records. Raises SourceError if it would need a condition."""
        value = _single(value)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return "unknown"
        if self.is_plain:
            return self._plain(value)
        if self._meets(value):
            return "success"
        is_failure = self.failure is None or self._is(value, self.failure)
        return "failure" if is_failure else "unknown"

    def _meets(self, value: Any) -> bool:
        if self.at_least is not None:
            return bool(value >= self.at_least)
        return self._is(value, self.equals if self.contains is None else self.contains)

    def _is(self, value: Any, wanted: Any) -> bool:
        return bool(value == wanted) if self.contains is None else wanted in str(value)

    def _plain(self, value: Any) -> Outcome:
        if value in OUTCOMES:
            return OUTCOMES[OUTCOMES.index(value)]
        if not isinstance(value, str) and value in {0, 1}:
            return "success" if value else "failure"
        problem = f"'{value}', not {' or '.join(OUTCOMES)}" if isinstance(value, str) else f"{value}, not 0 or 1"
        fix = "equals" if isinstance(value, str) else "at_least"
        raise SourceError(
            f"success: '{self.key}' is {problem}; declare which value means success, as "
            f'{{ key = "{self.key}", {fix} = TODO }}',
            reason="bad_success",
        )


def _single(value: Any) -> Any:
    """Unwrap an array or list with one value, and decode bytes."""
    if isinstance(value, np.ndarray | np.generic | list) and np.size(value) == 1:
        value = np.asarray(value).reshape(-1)[0].item()
    return bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else value
