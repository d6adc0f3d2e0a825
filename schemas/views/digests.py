"""The digest of a view: of its declaration, and of the name and version of each thing that computes it.

Code may be moved, renamed inside and made faster: as long as it computes the same, its version stays, and so do all
locks and statistics. `tests/data/op_outputs.json` tells when what it computes has changed.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.declarations.syntax import syntax_digest
from schemas.declarations.vocabulary import ARRAY_OPS, STEP_OPS, VERSIONS

SCHEME = "2-"  # how a digest begins; the first ones, of source text, were hexadecimal digits alone


def view_digest(declaration: Mapping[str, Any], versions: Mapping[str, int | str]) -> str:
    """Hash what a view is declared as, and the versions of what computes it, by name."""
    content = json.dumps([declaration, versions], sort_keys=True)
    return SCHEME + hashlib.sha256(content.encode()).hexdigest()


def op_version(word: str) -> int | str:
    """The version of an op; one without a version has the digest of its file's syntax instead."""
    if word in VERSIONS:
        return VERSIONS[word]
    function = ARRAY_OPS.get(word) or STEP_OPS[word]
    return syntax_digest(Path(inspect.getfile(function)).read_bytes())


def outdated(digest: str | None, what: str, *, fix: str) -> str | None:
    """Why a stored digest says nothing about today's view, and what to do; None if the two can be compared.

    >>> outdated("0" * 64, "the lock", fix="run 'oxe mix lock' again with --overwrite")
    "the lock was made before views had versions and cannot be checked: run 'oxe mix lock' again with --overwrite"
    """
    if digest is None or digest.startswith(SCHEME):
        return None
    return f"{what} was made before views had versions and cannot be checked: {fix}"
