import re

import pytest

from schemas import errors
from schemas.errors import MissingExtraError, OxeError, SourceError, did_you_mean


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    classes = {c.__name__: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, OxeError)}
    drawn = re.findall(r"^(?:├── |└── )?(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert drawn[0] == "OxeError"
    assert set(drawn) == set(classes)
    assert all(classes[name].__bases__ == (OxeError,) for name in drawn[1:])


def test_the_closest_word_is_named_and_all_are_listed() -> None:
    assert did_you_mean("xzy", ["xyz", "rpy"]) == "; did you mean 'xyz'? (known: rpy, xyz)"


def test_without_a_close_word_the_known_ones_are_listed() -> None:
    assert did_you_mean("colour", ["rpy"]) == ". (known: rpy)"


def test_without_any_known_word_the_list_says_none() -> None:
    assert did_you_mean("colour", []) == ". (known: none)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("wrong CRC", file="a.tfrecord", offset=0), "a.tfrecord: byte 0: wrong CRC"),
        (SourceError("wrong CRC", file="a.tfrecord"), "a.tfrecord: wrong CRC"),
        (SourceError("wrong CRC"), "wrong CRC"),
    ],
)
def test_a_source_error_leads_with_what_is_known_of_its_place(error: SourceError, text: str) -> None:
    assert str(error) == text


def test_a_source_error_keeps_its_parts() -> None:
    error = SourceError("wrong CRC", reason="bad_crc", file="a", offset=7)
    assert (error.message, error.reason, error.file, error.offset) == ("wrong CRC", "bad_crc", "a", 7)


def test_a_missing_extra_says_what_to_install() -> None:
    assert (
        str(MissingExtraError("h5py", extra="hdf5")) == "this needs the package 'h5py': pip install 'oxe-tools[hdf5]'"
    )
