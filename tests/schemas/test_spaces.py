import json
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import SpecError
from schemas.spaces import Dim, Space
from tests.schemas.makers import make_space


def test_a_space_survives_json() -> None:
    space = make_space()
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_its_length_is_its_number_of_dimensions() -> None:
    assert len(make_space()) == 7


def test_dimensions_of_one_kind_are_found_in_order() -> None:
    assert make_space().indices("rotation") == [3, 4, 5]
    assert make_space().indices("joint") == []


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ({"frame": "bse"}, "space action: unknown word 'bse'; did you mean 'base'?"),
        ({"rotation": "euler"}, "space action: unknown word 'euler'; did you mean 'euler_xyz'?"),
        ({"gripper": "closed"}, "space action: unknown word 'closed'; did you mean 'closed_is_1'?"),
        ({"origin": "measured"}, "space action: unknown word 'measured'"),
        ({"unit": "mm"}, "space action: unknown word 'mm'; did you mean 'm'?"),
        ({"mode": "relative"}, "space action: unknown word 'relative'"),
        ({"dims": (Dim("x", "m", "delta", "wheel"),)}, "space action: unknown word 'wheel'"),  # type: ignore[arg-type]
    ],
)
def test_a_word_outside_the_vocabulary_is_refused(word: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as error:
        make_space(**word)
    assert str(error.value).startswith(text)


def test_the_digest_is_of_the_meaning_and_not_of_the_name() -> None:
    assert make_space(name="a").digest() == make_space(name="b").digest()


@pytest.mark.parametrize(
    "other",
    [
        make_space(frame="tool"),
        make_space(rotation="rotvec"),
        make_space(gripper="unknown"),
        make_space(origin="achieved"),
        make_space(mode="absolute"),
        make_space(unit="controller"),
        replace(make_space(), dims=make_space().dims[::-1]),
    ],
)
def test_the_digest_differs_with_every_part_of_the_meaning(other: Space) -> None:
    assert other.digest() != make_space().digest()
