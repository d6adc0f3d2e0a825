"""The digest of a view: a hash of its declaration, and of the names and versions of the ops that compute it.

Code keeps its version when it is moved, renamed or made faster, as long as its result is the same. Locks and statistics
then stay valid. A test compares the results of ops with `tests/data/op_outputs.json`, so that no change is overlooked.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.declarations.syntax import syntax_digest
from schemas.declarations.vocabulary import ARRAY_OPS, STEP_OPS, VERSIONS

SCHEME = "2-"  # prefix of digests; the first scheme hashed the source code and had no prefix


def view_digest(declaration: Mapping[str, Any], versions: Mapping[str, int | str]) -> str:
    """Hash the declaration of a view, and the versions of the code that computes it by name."""
    content = json.dumps([declaration, versions], sort_keys=True)
    return SCHEME + hashlib.sha256(content.encode()).hexdigest()


def op_version(word: str) -> int | str:
    """Return the version of an op, or the syntax digest of its file if it has no version."""
    if word in VERSIONS:
        return VERSIONS[word]
    function = ARRAY_OPS.get(word) or STEP_OPS[word]
    return syntax_digest(Path(inspect.getfile(function)).read_bytes())


def outdated(digest: str | None, what: str, *, fix: str) -> str | None:
    """Return why a stored digest cannot be compared with that of the current view, with the fix; None if it can.

    >>> outdated("0" * 64, "the lock", fix="run 'oxe mix lock' again with --overwrite")
    "the lock was made before views had versions and cannot be checked: run 'oxe mix lock' again with --overwrite"
    """
    if digest is None or digest.startswith(SCHEME):
        return None
    return f"{what} was made before views had versions and cannot be checked: {fix}"
