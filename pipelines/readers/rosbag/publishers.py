"""Notice and tell apart several publishers that share a topic, by the names in their messages.

Messages of different publishers have different names, such as the joints of two arms or the frames of two sensors.
Resampled together, the values of one publisher would replace those of the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from rosbags.typesys.base import normalize_fieldname

from pipelines.readers.rosbag.fields import MessageLeaf
from schemas.errors import SourceError

Texts: TypeAlias = tuple[str, ...]  # a list of texts in a message, or a single text
Splits: TypeAlias = Mapping[str, Mapping[str, str | Texts]]  # as in `source.split`
MAX_SHOWN = 600  # characters of a list of names in an error


def publisher_name(splits: Splits, path: str, message: Any) -> str | None:
    """Return the name that `source.split` gives to the publisher of a message; None if its stream is not split.

    `path` is the path of the stream. Raises SourceError if the message has names that are not declared.
    """
    for key, names in splits.items():
        if key.startswith(f"{path}."):
            texts = tuple(_texts(message, key.removeprefix(f"{path}.").split("."), key))
            for name, declared in names.items():
                if texts == ((declared,) if isinstance(declared, str) else tuple(declared)):
                    return name
            unknown = f"{key} is {_shown(texts)} in a message, which source.split does not list: add it there"
            raise SourceError(unknown, reason="changing_length")
    return None


def _texts(content: Any, words: Sequence[str], key: str) -> Iterator[str]:
    if isinstance(content, list):
        for item in content:
            yield from _texts(item, words, key)
    elif not words and isinstance(content, str):
        yield content
    elif words and hasattr(content, attribute := normalize_fieldname(words[0])):
        yield from _texts(getattr(content, attribute), words[1:], key)
    else:
        raise SourceError(f"source.split: a message has no text {key}", reason="malformed_message")


class PublisherCheck:
    """Raises SourceError if the messages of a stream do not all come from one publisher."""

    def __init__(self, stream: str, leaves: Iterable[MessageLeaf]) -> None:
        """Check the leaves that say who published a message: names, and arrays of any length."""
        self.stream, self.leaves = stream, tuple(leaves)
        self.seen: dict[str, list[str]] = {}  # the different values of a text so far, the latest last
        self.is_first = True  # no message of this bag was checked yet

    def __bool__(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.leaves)

    def add(self, message: Any) -> None:
        """Check one more message: lists of names and lengths must not change, and a text must not change back."""
        for leaf in self.leaves:
            content = leaf.content(message)
            if leaf.form == "labels":
                if (texts := leaf.texts(content)) != leaf.labels:
                    raise self._changed_list(leaf.path, leaf.labels, texts)
            elif leaf.form == "text":
                self._add_text(leaf.path, str(content))
            else:
                leaf.number(content)
        self.is_first = False

    def _add_text(self, path: str, text: str) -> None:
        seen = self.seen.setdefault(path, [text])
        if text != seen[-1]:
            if text in seen:
                raise self._several(path, f"changes between '{text}' and '{seen[-1]}'", first=text, second=seen[-1])
            seen.append(text)

    def _changed_list(self, path: str, first: Texts, texts: Texts) -> SourceError:
        if self.is_first:
            message = f"{path} is {_shown(texts)} here and {_shown(first)} in the first bag: "
            message += "convert such bags as a source of their own, or write them again in one order"
            return SourceError(message, reason="changing_length")
        change = f"is {_shown(texts)} in one message and {_shown(first)} in the first"
        if texts and sorted(first) == sorted(texts):
            message = f"{path} {change}: values in changing order are not read; write the bag again in one order"
            return SourceError(message, reason="changing_length")
        return self._several(path, change, first=first, second=texts)

    def _several(self, path: str, change: str, *, first: str | Texts, second: str | Texts) -> SourceError:
        example = f"{{ '{path}' = {{ one = {_shown(first)}, other = {_shown(second)} }} }}"
        return SourceError(
            f"{path} {change}: several publishers share {self.stream}, and resampling would mix or lose their values; "
            f"read each as a stream of its own with source.split = {example}",
            reason="changing_length",
        )


def _shown(texts: str | Texts) -> str:
    shown = repr(texts if isinstance(texts, str) else list(texts))
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
