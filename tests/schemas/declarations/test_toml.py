"""Errors about a TOML file name the file."""

from pathlib import Path

import pytest

from schemas.declarations.toml import read, tables
from schemas.errors import SpecError


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    with pytest.raises(SpecError, match=r"x\.toml: no such file$"):
        read(path)
    with pytest.raises(SpecError, match=r"^no such lab$"):
        read(path, missing="no such lab")
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(SpecError, match=r"x\.toml: cannot be read .*codec"):
        read(path)


def test_a_key_that_is_given_twice_is_named_where_it_is_in_one_table() -> None:
    assert tables("a = 1\n[t]\na = 2", "x") == {"a": 1, "t": {"a": 2}}
    with pytest.raises(SpecError, match=r"^lab: is not TOML \(.*\); keys that occur twice: b$"):
        tables("a = 1\n[t]\na = 2\nb = 1\nb = 2", "lab")
