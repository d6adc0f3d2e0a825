"""What an evaluation leaves behind: its figures and a picture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.policy.scores import Scores
from oxe_tools.plot import svg
from schemas.errors import UsageError

FIGURES, PICTURE = "eval.json", "eval.svg"


def write(scores: Scores, out: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Write both into a folder, and give the figures; those of an earlier evaluation there are replaced."""
    found = {**told, **scores.to_json()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / FIGURES).write_text(json.dumps(found, indent=1) + "\n")
        (out / PICTURE).write_text(svg(scores, title=f"{told['model']}, part {told['part']}, {told['images']} images"))
    except OSError as error:
        raise UsageError(f"{out}: cannot be written to ({error})") from error
    return {**found, "out": str(out)}
