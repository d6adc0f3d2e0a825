"""Hash the motion of an episode, to find episodes that were recorded once and stored twice."""

import hashlib

import numpy as np

from schemas.declarations.ops import Steps
from schemas.store.columns import STATE

ROUNDED = 1e6  # values are rounded to 1e-6 before they are hashed


def motion_hash(steps: Steps) -> str:
    """Hash the shapes and the rounded values of action and state; the names of dimensions are not included.

    Episodes with equal numbers have the same hash, also if their images, ids or instructions differ.
    """
    digest = hashlib.sha256()
    for name in ("action", STATE):
        if name in steps:
            digest.update(str(steps[name].shape).encode())
            digest.update(np.round(steps[name].astype(np.float64) * ROUNDED).astype("<i8").tobytes())
    return digest.hexdigest()[:32]
