"""Print foreign text: names, instructions and error details that come from somebody's files.

Such a text may contain control characters that move the cursor or change what a terminal shows, and a URI in it may
contain a password. Every error message, every line that a command prints and every comment in a draft goes through
`shown`. JSON goes through `masked`, because its own escapes keep control characters harmless.
"""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
WORDS = r"token|signature|secret|passw(?:or)?d|passwd|pwd|credential|api[_-]?key|access[_-]?key|accessid"
NAMES = rf"[\w.~-]{{0,60}}(?:{WORDS})[\w.~-]{{0,60}}|sig|key|auth|jwt|code"  # names of parameters
SECRETS = (
    (re.compile(r"(://[^\s/?#:@]*:)[^\s/?#]*(?=@)"), rf"\1{HIDDEN}"),  # user:password@host
    (re.compile(r"(?<![\w/.])([\w.+-]+:)[^\s/@'\"]{1,200}(?=@[\w-])"), rf"\1{HIDDEN}"),  # without a scheme
    (re.compile(r"(\bhttps?://)[^\s/?#:@]+(?=@)", re.IGNORECASE), rf"\1{HIDDEN}"),  # token@host
    (re.compile(rf"([?&;](?:{NAMES})=)[^\s&;#'\"<>()]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bBearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:(AKIA|ASIA)[0-9A-Z]{16}|(hf_|gh[pousr]_)[A-Za-z0-9]{16,})\b"), rf"\1\2{HIDDEN}"),
)
MARKS = re.compile(r"://|:\S{1,200}@|[?&;][^=\s]{1,150}=|bearer|akia|asia|hf_|gh[pousr]_", re.IGNORECASE)


def shown(text: str) -> str:
    r"""Return a text as one line that is safe to print: control characters are escaped, and secrets in URIs hidden.

    Escaped are line ends, terminal sequences, characters that change the direction of writing, and bytes that are not
    UTF-8.

    >>> shown("pick\nup \x1b[31mred\u202e"), shown("s3://me:secret@host/x?sig=abc&part=2")
    ('pick\\nup \\x1b[31mred\\u202e', 's3://me:***@host/x?sig=***&part=2')
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return masked(text)


def masked(text: str) -> str:
    """Return a text with the secrets of its URIs hidden: passwords, signatures, tokens and access keys.

    >>> masked("https://me:secret@host/data.h5")
    'https://me:***@host/data.h5'
    """
    if MARKS.search(text) is None:
        return text
    for pattern, hidden in SECRETS:
        text = pattern.sub(hidden, text)
    return text


def masked_json(value: Any) -> Any:
    """Return a JSON value with the secrets hidden in all of its texts."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked(str(key)) if isinstance(key, str) else key: masked_json(item) for key, item in value.items()}
    return [masked_json(item) for item in value] if isinstance(value, list | tuple) else value
