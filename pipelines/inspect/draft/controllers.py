"""Read the controller that a recording describes.

Only robosuite's `OSC_POSE` is supported. robomimic, LIBERO and MimicGen use it, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.inspect.draft.claims import Claim
from pipelines.inspect.draft.clock import described
from pipelines.inspect.draft.sample import Sample

POSE = 6  # numbers per arm under OSC_POSE: a change of position and a rotation vector, both from -1 to 1


@dataclass(frozen=True, slots=True)
class Controller:
    """robosuite's controller `OSC_POSE`: its action has a pose for each arm, and perhaps a gripper."""

    arms: int
    where: str  # where the recording describes it

    def arm_width(self, width: int) -> int | None:
        """Return how many of an action's `width` numbers belong to each arm; None if the width does not fit."""
        each, rest = divmod(width, self.arms)
        return each if not rest and each in {POSE, POSE + 1} else None

    def claim(self, value: str) -> Claim:
        """Claim a value that the controller defines."""
        return Claim(value, "high", f"defined by robosuite's controller OSC_POSE ({self.where})")


def controller(sample: Sample) -> Controller | None:
    """Return the controller that the recording describes; None if it is not robosuite's `OSC_POSE` with deltas."""
    robots = next((value for _, value in described(sample, ("robots",))), "")
    for where, config in described(sample, ("controller_configs",)):
        if isinstance(config, Mapping) and config.get("type") == "OSC_POSE" and config.get("control_delta") is True:
            return Controller(len(robots) if isinstance(robots, list) and robots else 1, where)
    return None
