"""Read and parse TOML files, with errors that name the file."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from schemas.errors import SpecError
from schemas.parsing import parse_toml


def read(path: Path, *, missing: str | None = None) -> str:
    """Read a file's text. Raises SpecError if it is not readable; `missing` is the message if there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(missing or f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from error


def tables(text: str, where: str) -> dict[str, Any]:
    """Parse TOML; `where` is its name in errors."""
    try:
        return parse_toml(text)
    except ValueError as error:
        raise SpecError(f"{where}: is not TOML ({error}){_duplicate_keys(text)}") from error


def _duplicate_keys(text: str) -> str:
    """Return a hint that names the keys that occur twice in a table, because the parser's error does not."""
    parts = re.split(r"^\s*\[.*", text, flags=re.MULTILINE)
    counts = (Counter(re.findall(r"^\s*[\"']?([\w./-]+)[\"']?\s*=", part, re.MULTILINE)) for part in parts)
    twice = [key for count in counts for key, times in count.items() if times > 1]
    return f"; keys that occur twice: {', '.join(twice)}" if twice else ""
