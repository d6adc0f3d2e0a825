"""The rules of `oxe check`: what each one finds, how serious that is, and how to fix it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Its `version` is raised when it may give another result, so that cached findings are not used."""

    id: str
    severity: Severity
    finds: str
    fix: str
    version: int = 1


_TABLE = (
    ("non_finite", "error", "NaN or infinity in a column of the source", "record the episode again, or drop it"),
    ("duplicate", "error", "an episode with the same actions and states as another one", "drop one of the two"),
    ("split_leak", "error", "an episode that is in two splits", "drop it from one of the splits"),
    ("noop_first", "warning", "a first step that commands no motion", "mask the first step"),
    ("idle", "warning", "steps at which neither the robot moves nor a motion is commanded", "mask these steps"),
    ("timestamp_jitter", "warning", "irregular times between steps", "resample, or record with a steady clock"),
    ("timestamp_gap", "error", "missing steps, or times that do not increase", "cut the episode there, or drop it"),
    ("lag", "warning", "an action that the state follows later or earlier than in other episodes", "shift the actions"),
    ("frozen_state", "error", "a state that stands still while motion is commanded", "drop the episode"),
    ("spike", "warning", "a state that jumps and returns at once", "mask these steps, or repair the sensor's driver"),
    ("quantile_collapse", "error", "a dimension whose quantiles are useless for normalization", "normalize by bounds"),
    ("saturation", "warning", "a dimension that is often at its bounds", "check the controller's limits"),
    ("outcome_unknown", "info", "episodes without a recorded outcome", "declare `success` if the source records it"),
    ("language_missing", "warning", "episodes without an instruction", "add the instruction"),
    ("language_template", "warning", "an instruction that says nothing about the task", "write what the robot does"),
    ("black_camera", "error", "black frames", "drop the camera or the episode, or declare the camera optional"),
    ("frozen_camera", "warning", "a camera that repeats one frame while the robot moves", "drop the episode"),
    ("camera_lag", "warning", "a camera that shows a motion later or earlier than the state", "shift the images"),
    ("camera_swap", "warning", "an episode in which two cameras are exchanged", "exchange the two cameras"),
    ("near_duplicate", "warning", "an episode that is almost equal to another one", "drop one of the two"),
    ("copied_field", "error", "a column that equals another one", "correct the declaration or the recorder"),
    ("constant_dim", "info", "a dimension that never changes", "none is needed if the robot lacks this motion"),
    (
        "rest_offset",
        "warning",
        "command and state that differ by a constant while the robot rests",
        "calibrate the arms",
    ),
    (
        "convention",
        "error",
        "an aspect of the declared action that the motion of the whole dataset contradicts",
        "correct the declaration, and convert again",
    ),
    (
        "mixed_convention",
        "error",
        "an episode whose commands have other axes, signs, sizes, frame or sense than the others",
        "convert it with its own declaration, or drop it",
    ),
    ("stale_stats", "error", "statistics that do not belong to the data", "run `oxe stats --recompute`"),
)
RULES = {
    name: Rule(id=name, severity=severity, finds=finds, fix=fix)  # type: ignore[arg-type]
    for name, severity, finds, fix in _TABLE
}
