"""Whatever a reader raises becomes an error of the source, except requests to stop and our own mistakes."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.readers.boundary import source_error, source_errors
from pipelines.readers.bounded import BoundedReader
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from schemas.errors import SourceError, UnreachableError, UsageError
from schemas.source import RawEpisode, Unreadable
from tests.pipelines.readers.writers import WRITERS


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (OSError(5, "Input/output error"), "unreadable", "cannot be read (Input/output error)"),
        (MemoryError(), "too_large", "needs more memory than there is"),
        (RecursionError("maximum recursion"), "too_large", "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "unreadable", "UnicodeDecodeError: 'utf-8' codec"),
        (pa.ArrowInvalid("odd\n\x1b[31m"), "unreadable", "cannot be read (ArrowInvalid: odd)"),
        (KeyError("shape"), "unreadable", "cannot be read (KeyError: 'shape')"),
        (ValueError("at 0x7f00deadbeef"), "unreadable", "cannot be read (ValueError: at ...)"),
    ],
)
def test_an_exception_becomes_an_error_with_a_reason(error: Exception, reason: str, words: str) -> None:
    made = source_error(error, "x.h5")
    assert (made.reason, made.file) == (reason, "x.h5")
    assert words in made.message


class PanicException(BaseException):
    """As Rust libraries raise it; it is not an Exception."""


def test_a_panic_is_an_error_of_the_source() -> None:
    with pytest.raises(SourceError, match="PanicException: index out of bounds"), source_errors("x"):
        raise PanicException("index out of bounds")


@pytest.mark.parametrize("form", WRITERS)
def test_a_limit_on_open_files_ends_the_run_and_quarantines_nothing(form: str, tmp_path: Path) -> None:
    reader = open_source(str(tmp_path / "source"), WRITERS[form](tmp_path / "source"))
    (ref, *_) = plan(reader.files())
    list(reader.read(ref))  # imports what it needs
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(UnreachableError, match=r"Too many open files.*ulimit"):
            list(reader.read(ref))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_request_to_stop_passes(kind: type[BaseException]) -> None:
    with pytest.raises(kind), source_errors("x"):
        raise kind


def test_an_error_of_ours_about_something_else_passes() -> None:
    with pytest.raises(UsageError), source_errors("x"):
        raise UsageError("x")


def test_our_own_mistake_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError) as caught, source_errors("x"):
        _fail_in(monkeypatch, AssertionError("ours"))
    assert str(caught.value) == "ours"


def test_what_our_code_raises_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError) as caught, source_errors("x"):
        _fail_in(monkeypatch, TypeError("ours"))
    assert caught.value.reason == "unforeseen"


def _fail_in(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Raise an exception from a line that counts as our code."""
    monkeypatch.setattr("schemas.faults.PACKAGES", ("tests",))
    raise error


def test_the_file_is_named_once_and_without_the_folder_of_this_machine() -> None:
    made = source_error(ValueError("bad file /home/me/x.h5"), "/home/me/x.h5")
    assert "/home/me" not in made.message


class BrokenReader(Reader):
    """A reader that raises in the middle of a shard."""

    def __init__(self, inner: Reader, error: BaseException) -> None:
        self.inner, self.error = inner, error
        self.format, self.uri, self.fields = inner.format, inner.uri, inner.fields
        self.files, self.place = inner.files, inner.place  # type: ignore[method-assign]

    def read(self, ref: Any, columns: Any = None) -> Iterator[RawEpisode | Unreadable]:
        values = iter(self.inner.read(ref, columns))
        yield next(values)
        yield next(values)
        raise self.error


def test_episodes_that_a_failing_reader_leaves_are_quarantined(tmp_path: Path) -> None:
    good = open_source(str(tmp_path / "source"), WRITERS["rlds"](tmp_path / "source"))
    reader = BoundedReader("x", lambda: BrokenReader(good, KeyError("odd")))
    values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    assert sorted(value.index for value in values if value.index is not None) == list(range(5))
    assert [isinstance(value, Unreadable) for value in values] == [False, False, True, True, True]
    stopped = BoundedReader("x", lambda: BrokenReader(good, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        list(stopped.read(plan(stopped.files())[0]))


def test_a_damaged_npy_header_is_a_quarantine(tmp_path: Path) -> None:
    source = WRITERS["folders"](tmp_path / "source")
    file = tmp_path / "source/episode_9/action.npy"
    file.write_bytes(file.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': (((((("))
    reader = open_source(str(tmp_path / "source"), source)
    values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    (bad,) = [value for value in values if isinstance(value, Unreadable)]
    assert (bad.index, bad.reason) == (1, "unreadable")
    assert bad.file.endswith("episode_9/action.npy") or bad.file.endswith("episode_9")


def test_a_name_that_is_not_utf8_is_an_error_of_the_source(tmp_path: Path) -> None:
    source = WRITERS["folders"](tmp_path / "source")
    (tmp_path / "source/episode_9/caf\udce9.npy").write_bytes(b"")
    reader = open_source(str(tmp_path / "source"), source)
    reasons = [
        value.reason for ref in plan(reader.files()) for value in reader.read(ref) if isinstance(value, Unreadable)
    ]
    assert reasons == ["bad_utf8"]
    (tmp_path / "source/\udce9").mkdir()
    with pytest.raises(SourceError, match="is not UTF-8; rename it"):
        open_source(str(tmp_path / "source"), source).files()


def test_a_source_with_too_many_fields_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WRITERS["folders"](tmp_path / "source")
    monkeypatch.setattr("pipelines.readers.bounded.MAX_FIELDS", 3)
    with pytest.raises(SourceError, match="9 fields; the limit is 3"):
        open_source(str(tmp_path / "source"), source)
