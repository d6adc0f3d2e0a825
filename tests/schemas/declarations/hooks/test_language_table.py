import numpy as np
import pytest

from schemas.declarations.hooks.language_table import code_points
from schemas.errors import SourceError


def rows(*texts: str, size: int = 12) -> np.ndarray:
    return np.array([[*map(ord, text), *[0] * (size - len(text))] for text in texts], np.int32)


def test_each_step_gets_its_own_text_as_utf8() -> None:
    assert code_points(rows("push", "push", "schön", "push")) == [b"push", b"push", "schön".encode(), b"push"]


def test_a_text_ends_at_its_first_zero_or_with_the_row() -> None:
    assert code_points(np.int32([[97, 0, 98, 0]])) == [b"a"]
    assert code_points(rows("abc", size=3)) == [b"abc"]
    assert code_points(np.zeros((1, 4), np.int64)) == [b""]


def test_texts_pass() -> None:
    assert code_points([b"push"]) == [b"push"]


def test_no_steps_are_no_texts() -> None:
    assert code_points(np.zeros((0, 512), np.int32)) == []


@pytest.mark.parametrize("point", [-1, 0x110000, 0xD800])
def test_a_number_that_is_no_code_point_is_refused(point: int) -> None:
    with pytest.raises(SourceError, match="not code points") as error:
        code_points(np.array([[point, 0]], np.int64))
    assert error.value.reason == "bad_utf8"
