"""TOML files become tables; what is wrong with a file is one error that names it."""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from schemas.errors import SpecError


def read(path: Path, *, missing: str | None = None) -> str:
    """Read a file's text; `missing` is what to say where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(missing or f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from error


def tables(text: str, where: str) -> dict[str, Any]:
    """Parse TOML; `where` names it in errors."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not TOML ({error}){_given_twice(text)}") from error


def _given_twice(text: str) -> str:
    """Name the keys that a table of the file gives twice, which TOML forbids without naming them."""
    parts = re.split(r"^\s*\[.*", text, flags=re.MULTILINE)
    counts = (Counter(re.findall(r"^\s*[\"']?([\w./-]+)[\"']?\s*=", part, re.MULTILINE)) for part in parts)
    twice = [key for count in counts for key, times in count.items() if times > 1]
    return f"; given twice: {', '.join(twice)}" if twice else ""
