"""A reader inside the boundary; `open_source` returns every source in this form."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.readers.boundary import source_error, source_errors
from pipelines.readers.reader import FilePart, LeftOut, Reader, ShardRef
from schemas.errors import SourceError
from schemas.limits import MAX_FIELDS, check_limit
from schemas.source import Field, RawEpisode, Unreadable


class BoundedReader(Reader):
    """A reader that raises only our errors, and yields one value per planned episode whatever happens."""

    def __init__(self, uri: str, opened: Callable[[], Reader]) -> None:
        """Open a reader, and check that its fields can be named and are not too many."""
        with source_errors(uri):
            self.inner = opened()
            self.format, self.uri = self.inner.format, self.inner.uri
            self.fields: tuple[Field, ...] = tuple(self.inner.fields)
        check_limit(len(self.fields), MAX_FIELDS, "fields", where=uri)
        for field in self.fields:
            if not _is_utf8(field.path):
                raise SourceError(f"the field {field.path!r} has a name that is not UTF-8", reason="bad_utf8", file=uri)

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Return the files of every split, in order."""
        with source_errors(self.uri):
            return self.inner.files()

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`; if the reader fails, an `Unreadable` for each one that is left."""
        missing = {part.first + number: part for part in ref.parts for number in range(part.count)}
        values = iter(self.inner.read(ref, columns))
        while True:
            try:
                value = next(values, None)
            except BaseException as error:  # noqa: BLE001 - `source_error` raises those that are not about the data
                for index, part in missing.items() or [(None, ref.parts[-1])]:
                    failure = source_error(error, self.place(part.name))
                    yield Unreadable.of(failure, index=index, split=ref.split)
                return
            if value is None:
                return
            if value.index is not None:
                missing.pop(value.index, None)
            yield value

    def place(self, name: str) -> str:
        """Return the full path of a file in `files`, as errors show it."""
        return self.inner.place(name)

    def description(self) -> dict[str, Any]:
        """Return what identifies the source besides its files."""
        with source_errors(self.uri):
            return self.inner.description()

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of files; missing files are left out."""
        with source_errors(self.uri):
            return self.inner.tails(names, count)

    def layout(self) -> dict[str, Any]:
        """Return the keys of `source` that reproduce the reader."""
        return self.inner.layout()

    def declaration(self) -> str | None:
        """Return the text of the declaration inside the source; None if there is none."""
        with source_errors(self.uri):
            return self.inner.declaration()

    def total_steps(self) -> int | None:
        """Return the number of steps of all episodes; None if only reading them would give it."""
        with source_errors(self.uri):
            return self.inner.total_steps()

    def notes(self) -> Sequence[str]:
        """Describe each contradiction between the source and its own description."""
        with source_errors(self.uri):
            return self.inner.notes()

    def check_unchanged(self) -> None:
        """Raise UnreachableError if a file of the source has changed since the reader first looked at it."""
        with source_errors(self.uri):
            self.inner.check_unchanged()

    def guesses(self) -> Mapping[str, str]:
        """Return the keys of `source` that were guessed, each with what was guessed."""
        return self.inner.guesses()

    def left_out(self) -> Sequence[LeftOut]:
        """Count what lies in the source and is not read."""
        with source_errors(self.uri):
            return self.inner.left_out()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
