"""What the parsers of expressions and of conditions share: the words of a text, read one after the other."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from schemas.errors import OxeError

Item = TypeVar("Item")


class Token(NamedTuple):
    """A word of a text, or its `end`, or a character that is `unknown`."""

    kind: str
    word: str
    start: int


class Parser(ABC):
    """A place in a text; a grammar adds its rules, and what its errors look like."""

    def __init__(self, text: str, words: str) -> None:
        """Cut the text into words, which may have white space before them: what the groups of `words` match."""
        pattern = re.compile(rf"\s*(?:{words}|(?P<unknown>.)|(?P<end>\Z))", re.DOTALL)
        matches = ((match, str(match.lastgroup)) for match in pattern.finditer(text))
        self.tokens = [Token(kind, match[kind], match.start(kind)) for match, kind in matches]
        self.text, self.position = text, 0

    @property
    def next(self) -> Token:
        """The word that is read next."""
        return self.tokens[self.position]

    @abstractmethod
    def error(self, wanted: str) -> OxeError:
        """Make the error for a next word that is not what is wanted."""

    def advance(self) -> str:
        """Read a word."""
        self.position += 1
        return self.tokens[self.position - 1].word

    def take(self, word: str) -> bool:
        """Read this word, if it is the next one."""
        is_next = self.next.word == word
        self.position += is_next
        return is_next

    def expect(self, word: str) -> None:
        """Read this word, or raise an error."""
        if not self.take(word):
            raise self.error(f"'{word}'")

    def listed(self, item: Callable[[], Item], between: str) -> list[Item]:
        """Read one item or several, with a word between them."""
        items = [item()]
        while self.take(between):
            items.append(item())
        return items
