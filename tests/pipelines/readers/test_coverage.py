"""What a reader guessed and what it leaves out is said, and survives the manifest."""

import json

from pipelines.readers.coverage import Coverage
from pipelines.readers.reader import LeftOut
from tests.pipelines.readers.test_reader import make_reader

COVERAGE = Coverage(
    {"episodes": "'ep_*', the names of 3 of 3 folders"},
    (LeftOut("files", 3, "videos/0.mp4"), LeftOut("folders", 1, "calibration")),
)


def test_each_guess_and_each_kind_of_thing_that_is_left_out_is_a_sentence() -> None:
    assert list(COVERAGE.sentences()) == [
        "source.episodes was guessed: 'ep_*', the names of 3 of 3 folders",
        "not read: 3 files, such as videos/0.mp4",
        "not read: calibration",
    ]


def test_the_manifest_keeps_it() -> None:
    assert Coverage.from_json(json.loads(json.dumps(COVERAGE.to_json()))) == COVERAGE


def test_nothing_is_written_if_there_is_nothing_to_say() -> None:
    assert Coverage.of(make_reader()).to_json() == {}  # a reader without these methods
    assert Coverage.from_json({}) == Coverage({}, ())
