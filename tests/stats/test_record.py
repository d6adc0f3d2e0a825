import json

import pytest

from schemas.errors import StatsError, UsageError
from stats.record import Statistics
from tests.stats.makers import make_numbers, make_statistics


def test_it_survives_json_with_its_digest() -> None:
    found = make_statistics()
    data = json.loads(json.dumps(found.to_json()))
    assert Statistics.from_json(data, where="here").digest() == found.digest() == data["xxh3_128"]


def test_another_number_is_another_digest() -> None:
    assert make_statistics().digest() != make_statistics(make_numbers(1)).digest()


def test_a_changed_number_is_found() -> None:
    data = make_statistics().to_json()
    data["vectors"]["action"]["q99"][0] += 1e-9
    with pytest.raises(StatsError, match="file: its content does not match its digest"):
        Statistics.from_json(data, where="file")


@pytest.mark.parametrize("gone", ["vectors", "members", "robot"])
def test_a_missing_key_is_named(gone: str) -> None:
    data = make_statistics().to_json()
    del data[gone]
    with pytest.raises(StatsError, match=f"file: damaged .*{gone}"):
        Statistics.from_json(data, where="file")


def test_figures_that_do_not_fit_their_space_are_refused() -> None:
    for figures in ([1.0], [1.0, 2.0, 3.0], [1.0, float("nan")], ["a", "b"]):
        data = make_statistics().to_json()
        data["vectors"]["action"]["q10"] = figures
        with pytest.raises(StatsError, match="file: damaged"):
            Statistics.from_json(data, where="file")


@pytest.mark.parametrize("data", [[], {}, {"format": "oxe-tools statistics", "version": 2}])
def test_what_is_no_such_record_is_refused(data: object) -> None:
    with pytest.raises(StatsError, match="file: expected statistics of version 1; compute them again"):
        Statistics.from_json(data, where="file")  # type: ignore[arg-type]


def test_a_vector_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"toy: no statistics of 'acton'; did you mean 'action'?"):
        make_statistics().norm("acton")
