"""Recordings that name their controller: robosuite, and with it robomimic, LIBERO and MimicGen."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.inspect.draft.claims import Claim
from pipelines.inspect.draft.clock import described
from pipelines.inspect.draft.sample import Sample

POSE = 6  # numbers of an arm under OSC_POSE: a change of position and a rotation vector, both from -1 to 1


@dataclass(frozen=True, slots=True)
class Controller:
    """What robosuite's controller `OSC_POSE` takes: for each arm a pose and, perhaps, a gripper."""

    arms: int
    where: str

    def arm_width(self, width: int) -> int | None:
        """Say how many of an action's numbers belong to each arm; None where they do not fit."""
        each, rest = divmod(width, self.arms)
        return each if not rest and each in {POSE, POSE + 1} else None

    def claim(self, word: str) -> Claim:
        """Claim what is known of the controller."""
        return Claim(word, "high", f"robosuite's OSC_POSE takes it so ({self.where})")


def controller(sample: Sample) -> Controller | None:
    """Find a description of robosuite's controller in the recording."""
    robots = next((value for _, value in described(sample, ("robots",))), "")
    for where, told in described(sample, ("controller_configs",)):
        if isinstance(told, Mapping) and told.get("type") == "OSC_POSE" and told.get("control_delta") is True:
            return Controller(len(robots) if isinstance(robots, list) and robots else 1, where)
    return None
