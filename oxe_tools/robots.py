"""Describe the embodiments and the robots they are for, for `oxe datasets show` and docs/robots.md."""

from collections.abc import Iterable, Sequence
from typing import Any

from oxe_tools.datasets import describe_space
from schemas.declarations import catalog
from schemas.declarations.robots import BOTH, Robot, Which, by_type
from schemas.spaces import Kind

HEAD = """# Robots

The robots whose recordings are known, by maker. Each row is an embodiment in `schemas/embodiments/`: one way in which
recordings of the robot store its vectors, with the sources of its facts. `oxe datasets show NAME` prints all that is
known about it. [Embodiments](reference/embodiments.md#how-recordings-store-the-vectors) explains the files.

The columns `joints` and `gripper` have the unit or sense that is stored, and the ops that convert the recorded numbers
of the state (of the action, if there is no state) into it. `UPDATE_GOLDEN=1 pytest tests/docs` writes this page.
"""
SHARED = """
## Robot types of several embodiments

Recordings with one of these values of LeRobot's `robot_type` may fit any of the embodiments in its row. Those in
parentheses need a setting that is off by default.

| `robot_type` | embodiments |
|---|---|"""


def details(robot: Robot) -> dict[str, Any]:
    """Return all that is known about an embodiment, for `oxe datasets show NAME --json`."""
    read: dict[str, Any] = {}
    for which in BOTH:
        if space := robot.space(which):
            vector = robot.vector(which)
            read[which] = {
                "space": space.space(which).to_json(),
                "names": list(vector.names),
                "other_names": [list(names) for names in vector.other_names],
                "expressions": robot.expressions(which, which),
                "ranges": {part: list(limits) for part, limits in vector.ranges.items()},
            }
    embodiment, recorded = robot.embodiment, robot.recorded
    facts = recorded.model_dump(mode="json", exclude={"state", "action"}) if recorded else None
    words = {word: getattr(embodiment, word) for word in ("name", "robot", "controller", "morphology")}
    return {**words, **read, "recorded": facts}


def section(robot: Robot) -> str:
    """Return the description of an embodiment in Markdown."""
    embodiment, recorded = robot.embodiment, robot.recorded
    facts = {"robot": f"{embodiment.robot}; {embodiment.controller}; {embodiment.morphology}"}
    if recorded:
        facts["maker"] = recorded.maker
        facts["recorded so by"] = recorded.software
        facts["robot types"] = ", ".join(f"`{word}`" for word in recorded.robot_types)
        facts["robot types after a setting was changed"] = ", ".join(f"`{word}`" for word in recorded.unusual_types)
        facts["rate"] = " or ".join(f"{hz:g} Hz" for hz in recorded.control_hz)
    for which in reversed(BOTH):
        if space := robot.space(which):
            facts[which] = describe_space(space.space(which))
            facts[f"names of the recorded {which}"] = ", ".join(f"`{name}`" for name in robot.vector(which).names)
            facts[f"recorded {which}"] = ", ".join(
                f"{part} from {low:g} to {high:g}" for part, (low, high) in robot.vector(which).ranges.items()
            )
            facts[f"expressions of the {which}"] = ", ".join(
                f"{part} = `{text}`" for part, text in robot.expressions(which, which).items()
            )
    if recorded:
        facts["limits"] = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in recorded.limits.items())
    lines = [f"## {robot.name}", "", *(f"- {what}: {text}" for what, text in facts.items() if text)]
    if recorded and recorded.errata:
        lines += ["", "Known problems:", "", *(f"- {line}" for line in recorded.errata)]
    return "\n".join(lines)


def page() -> str:
    """Return the content of docs/robots.md."""
    robots = catalog.known_robots()
    makers: dict[str, list[Robot]] = {}
    for robot in robots:
        makers.setdefault(robot.recorded.maker if robot.recorded else "", []).append(robot)
    lines = [HEAD.rstrip()]
    for maker in sorted(makers, key=str.casefold):
        lines += ["", f"## {maker}", "", "| embodiment | robot | `robot_type` | numbers | joints | gripper | Hz |"]
        lines += ["|---|---|---|---|---|---|---|", *map(_row, makers[maker])]
    return "\n".join([*lines, SHARED, *_shared(robots)]) + "\n"


def _row(robot: Robot) -> str:
    space, recorded = robot.embodiment.state or robot.embodiment.action, robot.recorded
    numbers = sum(len(part.dims) for part in space.parts.values())
    hz = ", ".join(f"{hz:g}" for hz in recorded.control_hz) if recorded else ""
    types = _types(recorded.robot_types, recorded.unusual_types) if recorded else ""
    how = (_stored(robot, "joint"), _stored(robot, "gripper"))
    cells = (f"`{robot.name}`", robot.embodiment.robot, types, str(numbers), *how, hz)
    return f"| {' | '.join(cells)} |"


def _stored(robot: Robot, kind: Kind) -> str:
    """Return the unit of the recorded joints, or the sense of the grippers, with the ops that lead to it."""
    which: Which = "state" if robot.embodiment.state else "action"
    space, ops = robot.embodiment.state or robot.embodiment.action, robot.vector(which).ops
    texts: dict[str, set[str]] = {}
    for name, part in space.parts.items():
        if part.kind == kind:
            texts.setdefault(space.gripper if kind == "gripper" else part.unit, set()).add(ops.get(name, ""))
    words = []
    for unit, several in texts.items():
        (op, *more) = sorted(several)
        words.append(f"{unit} (differs by joint)" if more else f"{unit} (`{op}`)" if op else unit)
    return ", ".join(words).replace("|", "\\|")


def _shared(robots: Sequence[Robot]) -> Iterable[str]:
    unusual = {(word, robot.name) for robot in robots if robot.recorded for word in robot.recorded.unusual_types}
    for word, names in sorted(by_type(robots).items(), key=lambda item: item[0].casefold()):
        if len(names) > 1:
            usual = [name for name in names if (word, name) not in unusual]
            yield f"| `{word}` | {_types(usual, [name for name in names if name not in usual])} |"


def _types(usual: Iterable[str], unusual: Iterable[str]) -> str:
    return ", ".join([*(f"`{word}`" for word in usual), *(f"(`{word}`)" for word in unusual)])
