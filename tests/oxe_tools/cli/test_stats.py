"""The parsing and printing of `oxe stats`; its results are tested in `tests/oxe_tools/test_statistics.py`."""

from typing import get_args

import numpy as np

from oxe_tools.cli.stats import Form, sparkline
from stats import formats


def test_every_form_of_statistics_can_be_written() -> None:
    assert get_args(Form) == get_args(formats.Form)


def test_a_sparkline_shows_every_count_that_is_not_zero() -> None:
    assert sparkline(np.array([0, 1, 1000, 500])) == " ▁█▄"
    assert sparkline(np.zeros(2, int)) == "  "
