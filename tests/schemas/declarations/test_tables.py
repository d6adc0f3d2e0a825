import numpy as np
import pytest
from pydantic import ValidationError

from schemas.declarations.tables import FieldSpec, FilterSpec, Part


def test_a_part_may_be_written_in_words() -> None:
    table = {"kind": "position", "dims": ("x", "y"), "unit": "m", "mode": "delta"}
    assert Part.model_validate("position x y, m, delta") == Part.model_validate(table)
    assert Part.model_validate("gripper, 1, absolute").dims == ("gripper",)


@pytest.mark.parametrize("text", ["", "position x y", "position x, m", ", m, delta", "position x, m m, delta"])
def test_a_part_in_other_words_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="expected a part such as 'position x y z, m, delta'"):
        Part.model_validate(text)


@pytest.mark.parametrize(
    ("text", "dtype", "shape", "doc"),
    [
        ("float64 [3] position (m)", "float64", (3,), "position (m)"),
        ("[4, 4] a matrix", "float32", (4, 4), "a matrix"),
        ("bool [] true = open", "bool", (), "true = open"),
        ("text the task", "text", (), "the task"),
        ("at least 6: xyz", "float32", None, "at least 6: xyz"),
        ("integral of [3] things", "float32", None, "integral of [3] things"),
        ("[7]", "float32", (7,), ""),
        ("text", "text", (), ""),
    ],
)
def test_a_field_is_described_in_words(text: str, dtype: str, shape: tuple[int, ...] | None, doc: str) -> None:
    told = FieldSpec.model_validate(text)
    assert (told.dtype, told.shape, told.doc) == (dtype, shape, doc)
    assert told.model_dump() == text


def test_a_filter_keeps_what_equals_or_contains() -> None:
    assert FilterSpec(key="success", equals=True).keeps(np.True_)
    assert not FilterSpec(key="success", equals=True).keeps(np.False_)
    assert FilterSpec(key="path", contains="/success/").keeps("/lab/success/1")
    assert not FilterSpec(key="path", contains="/success/").keeps("/lab/failure/1")
    with pytest.raises(ValidationError, match="needs either 'equals' or 'contains'"):
        FilterSpec(key="path")
