"""Did an episode succeed? What a declaration says about it, read strictly: what nobody recorded is `unknown`."""

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
    """Where a source says whether an episode succeeded, and which values say so.

    Without a condition the value is true or false, 1 or 0, or one of the words `success`, `failure` and `unknown`.
    With one, a value that meets it is a success and any other a failure; where `failure` is given, only one that
    equals or contains that text.
    """

    key: str  # a field per episode or per step
    equals: bool | int | str | None = None
    contains: str | None = None
    at_least: float | None = None
    failure: str | None = None
    step: Literal["last", "any"] = "last"  # of a field per step: its last value, or one success anywhere

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return {"key": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(value is not None for value in (self.equals, self.contains, self.at_least)) > 1:
            raise ValueError("one of 'equals', 'contains' and 'at_least' is enough")
        if self.failure is not None and not isinstance(self.equals, str) and self.contains is None:
            raise ValueError("failure: is a text; it goes with an 'equals' or 'contains' of texts")
        return self

    @property
    def is_plain(self) -> bool:
        """Say whether values are read without a condition."""
        return (self.equals, self.contains, self.at_least) == (None, None, None)

    @property
    def takes(self) -> Literal["text", "number"] | None:
        """Say which values the condition is for; None without one."""
        if self.is_plain:
            return None
        return "text" if isinstance(self.equals, str) or self.contains is not None else "number"

    def of_steps(self, column: Sequence[Any]) -> Outcome:
        """Read a field with T values."""
        if self.step == "last":
            return self.of_value(column[-1]) if len(column) else "unknown"
        found = {self.of_value(value) for value in column}
        return next((outcome for outcome in OUTCOMES if outcome in found), "unknown")

    def of_value(self, value: Any) -> Outcome:
        """Read one value; one that the declaration does not explain is a SourceError."""
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
        told = f"'{value}', none of {', '.join(OUTCOMES)}" if isinstance(value, str) else f"{value}, neither 0 nor 1"
        fix = f'equals = "{value}"' if isinstance(value, str) else "at_least = 0.5"
        raise SourceError(
            f"success: '{self.key}' is {told}; say what counts, such as {{ key = \"{self.key}\", {fix} }}",
            reason="bad_success",
        )


def _single(value: Any) -> Any:
    """Take one value out of its array, and decode a text."""
    if isinstance(value, np.ndarray | np.generic | list) and np.size(value) == 1:
        value = np.asarray(value).reshape(-1)[0].item()
    return bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else value
