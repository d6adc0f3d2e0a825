"""The base class of the parsers of expressions and conditions: it splits a text into tokens and reads them in order."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from schemas.errors import OxeError

Item = TypeVar("Item")


class Token(NamedTuple):
    """A word of a text, the end of the text (kind `end`), or a character that fits no word (kind `unknown`)."""

    kind: str
    word: str
    start: int


class Parser(ABC):
    """The tokens of a text and the current position; a subclass adds the rules of its grammar and its errors."""

    def __init__(self, text: str, words: str) -> None:
        """Split the text into tokens; each named group of the regular expression `words` is one kind of token."""
        pattern = re.compile(rf"\s*(?:{words}|(?P<unknown>.)|(?P<end>\Z))", re.DOTALL)
        matches = ((match, str(match.lastgroup)) for match in pattern.finditer(text))
        self.tokens = [Token(kind, match[kind], match.start(kind)) for match, kind in matches]
        self.text, self.position = text, 0

    @property
    def next(self) -> Token:
        """The next token."""
        return self.tokens[self.position]

    @abstractmethod
    def error(self, wanted: str) -> OxeError:
        """Return the error to raise if the next token is not `wanted`, a description of what the grammar requires."""

    def advance(self) -> str:
        """Read one token and return its text."""
        self.position += 1
        return self.tokens[self.position - 1].word

    def take(self, word: str) -> bool:
        """Read the next token if it is `word`, and return whether it was."""
        is_next = self.next.word == word
        self.position += is_next
        return is_next

    def expect(self, word: str) -> None:
        """Read the next token, which must be `word`."""
        if not self.take(word):
            raise self.error(f"'{word}'")

    def listed(self, item: Callable[[], Item], between: str) -> list[Item]:
        """Read one or more items, separated by `between`."""
        items = [item()]
        while self.take(between):
            items.append(item())
        return items
