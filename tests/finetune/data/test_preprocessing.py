"""What a policy sees when it acts follows from what its training saw."""

from typing import Any

import numpy as np
import pytest

from finetune.data.augment import Augmentation, center_crop
from finetune.data.preprocessing import Preprocessing
from schemas.errors import CheckpointError, UsageError
from tests.pipelines.toy import jpeg

TRAINED = Preprocessing(augment=Augmentation())


def test_acting_after_crops_sees_the_middle_of_the_same_area() -> None:
    acting = TRAINED.acting()
    assert (acting.augment, acting.crop) == (None, 0.9)
    half = Preprocessing(augment=Augmentation(area=(0.4, 0.6))).acting()
    whole = Preprocessing().seen(jpeg(0, size=40))
    np.testing.assert_array_equal(acting.seen(jpeg(0, size=40)), center_crop(whole))
    np.testing.assert_array_equal(half.seen(jpeg(0, size=40)), center_crop(whole, area=0.5))


@pytest.mark.parametrize(
    ("trained", "center_crop", "crop"),
    [
        (Preprocessing(), None, None),
        (Preprocessing(), True, 0.9),
        (TRAINED, False, None),
        (Preprocessing(augment=Augmentation(area=(1.0, 1.0))), None, None),
    ],
)
def test_it_is_cropped_where_the_training_was_or_as_is_said(
    trained: Preprocessing, *, center_crop: Any, crop: Any
) -> None:
    assert trained.acting(center_crop=center_crop) == Preprocessing(crop=crop)


@pytest.mark.parametrize("told", [TRAINED, TRAINED.acting(), Preprocessing(size=None, method="area")])
def test_it_comes_back_from_a_checkpoint(told: Preprocessing) -> None:
    assert Preprocessing.of(told.to_json()) == told


def test_a_crop_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match=r"crop 1\.5: must be above 0"):
        Preprocessing(crop=1.5)
    with pytest.raises(UsageError, match="cannot be combined with augment"):
        Preprocessing(crop=0.9, augment=Augmentation())
    with pytest.raises(CheckpointError, match=r"preprocessing\.json: not valid preprocessing"):
        Preprocessing.of({**TRAINED.to_json(), "crop": 0.9})
