"""A draft as TOML: each line with its claim behind it."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pipelines.inspect.draft.claims import Claim
from pipelines.inspect.draft.clock import Clock
from pipelines.inspect.draft.parts import SpaceDraft
from schemas.declarations.spec import TODO, todos

HEAD = """\
# Proposed by 'oxe inspect --draft' from {episodes} episodes ({steps} steps) of {uri}.
# Behind a line: how sure it is (high, medium, low), and why. Where it says TODO, put what is true in its place, or
# 'unknown' if nobody knows: until then 'oxe convert' and 'oxe datasets check' refuse this file. Read the rest, too.
# docs/declarations.md explains every key and word.
"""
DERIVE = "no actions were recorded: next_state (the state of the next step) or achieved_delta (the change of the pose)"
BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Everything that a draft says."""

    name: str
    source: Mapping[str, Any]
    episodes: int
    steps: int
    clock: Clock
    robot: Claim
    controller: Claim
    state: SpaceDraft | None
    action: SpaceDraft | None
    language: Claim | None = None
    id: Claim | None = None
    success: Claim | None = None
    cameras: Mapping[str, tuple[str, Claim]] = field(default_factory=dict)
    depth: Mapping[str, str] = field(default_factory=dict)
    shipped: Sequence[str] = ()
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Write the declaration."""
        return "\n".join(_lines(self)) + "\n"

    def todo(self) -> list[str]:
        """List the keys that a person must still fill in."""
        return todos(tomllib.loads(self.text()))

    def to_json(self) -> dict[str, Any]:
        """Give every claim with its confidence and evidence."""
        single = {
            "control_hz": self.clock.hz,
            "timestamp": self.clock.timestamp,
            "language": self.language,
            "id": self.id,
        }
        single |= {"robot": self.robot, "controller": self.controller}
        return {
            "name": self.name,
            "source": dict(self.source),
            "claims": {key: claim.to_json() for key, claim in single.items() if claim},
            "cameras": {role: {"key": path, **claim.to_json()} for role, (path, claim) in self.cameras.items()},
            "depth": dict(self.depth),
            "state": self.state.to_json() if self.state else None,
            "action": self.action.to_json() if self.action else None,
            "shipped": list(self.shipped),
            "notes": list(self.notes),
            "todo": self.todo(),
            "text": self.text(),
        }


def _lines(told: Proposal) -> Iterator[str]:
    yield HEAD.format(episodes=told.episodes, steps=told.steps, uri=_plain(str(told.source["uri"])))
    if told.shipped:
        yield f"# Shipped declarations that fit these fields ('oxe datasets show NAME'): {', '.join(told.shipped)}.\n"
    yield from (f"# {_plain(note)}\n" for note in told.notes)
    yield from _top(told)
    yield from _cameras(told)
    yield "\n[embodiment]"
    yield f"name       = {_quoted(told.name)}"
    yield _line("robot", _quoted(told.robot.value), told.robot)
    yield _line("controller", _quoted(told.controller.value), told.controller)
    spaces = [(which, space) for which, space in (("state", told.state), ("action", told.action)) if space]
    for which, space in spaces:
        yield f"\n[embodiment.{which}]"
        yield from (_line(word, _quoted(claim.value), claim) for word, claim in space.words().items())
        for part in space.parts:
            yield from _why(kind=part.kind, unit=part.unit, mode=part.mode)
            yield f"parts.{_key(part.name)} = {_quoted(part.meaning)}"
    for which, space in spaces:
        yield f"\n[{which}]"
        for part in space.parts:
            end = f"  # {_plain(str(part.mapped))}" if part.mapped else ""
            yield f"{_key(part.name)} = {_quoted(part.expression)}{end}"


def _top(told: Proposal) -> Iterator[str]:
    yield f"name       = {_quoted(told.name)}"
    yield f"source     = {_value(told.source)}"
    hz = told.clock.hz
    yield _line("control_hz", _quoted(hz.value) if hz.is_open else hz.value, hz)
    single = {"timestamp": told.clock.timestamp, "language": told.language, "id": told.id, "success": told.success}
    for key, claim in single.items():
        if claim:
            yield _line(key, _quoted(claim.value), claim)
    if told.action is None:
        yield f"action     = {{ derive = {_quoted(TODO)} }}  # {TODO}: {DERIVE}"


def _cameras(told: Proposal) -> Iterator[str]:
    if told.cameras:
        yield "\n[cameras]"
        yield from (_line(role, _quoted(path), claim) for role, (path, claim) in told.cameras.items())
    for role, path in told.depth.items():
        yield f"\n[depth.{_key(role)}]  # metres_per_unit, where it is known, says how far one count is"
        yield f"key        = {_quoted(path)}"


def _why(**claims: Claim) -> Iterator[str]:
    """Write the evidence of each word, together where it is the same."""
    for told, words in groupby(claims, key=lambda word: str(claims[word])):
        yield f"# {', '.join(words)} {_plain(told)}"


def _line(key: str, value: str, claim: Claim) -> str:
    return f"{_key(key):<10} = {value}  # {_plain(str(claim))}"


def _plain(text: str) -> str:
    """Make one line of a text that a source may have written."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _key(word: str) -> str:
    return word if BARE.fullmatch(word) else _quoted(word)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(held)}" for key, held in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)
