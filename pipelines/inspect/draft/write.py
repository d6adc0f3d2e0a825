"""Write a draft as TOML. Comments have the confidence of each value and the evidence for it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pipelines.inspect.draft.claims import Claim
from pipelines.inspect.draft.clock import Clock
from pipelines.inspect.draft.parts import SpaceDraft
from schemas.declarations.spec import TODO, todos
from schemas.parsing import parse_toml
from schemas.text import shown

HEAD = """\
# Proposed by 'oxe inspect --draft' from {episodes} ({steps} steps) of {uri}.
# The comments have the confidence (high, medium, low) of each value and the evidence for it. Replace each TODO with
# the right value, or with 'unknown' if nobody knows it: until then, 'oxe convert' and 'oxe datasets check' refuse this
# file. Review the other lines, too. docs/declarations.md explains all keys and values.
"""
DERIVE = "no actions were recorded: next_state (the state of the next step) or achieved_delta (the change of the pose)"
BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A drafted declaration."""

    name: str
    source: Mapping[str, Any]
    episodes: int  # that the claims were drafted from
    total: int  # episodes of the source
    steps: int  # in the episodes that the claims were drafted from
    clock: Clock
    robot: Claim
    controller: Claim
    embodiment_name: str
    morphology: str
    state: SpaceDraft | None
    action: SpaceDraft | None
    embodiment: Claim | None = None  # which shipped embodiment it is, if several fit: instead of `state` and `action`
    vectors: Mapping[str, str] = field(default_factory=dict)  # the expression of each whole vector of these embodiments
    language: Claim | None = None
    id: Claim | None = None
    success: Claim | None = None
    cameras: Mapping[str, tuple[str, Claim]] = field(default_factory=dict)
    depth: Mapping[str, str] = field(default_factory=dict)
    shipped: Sequence[str] = ()
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Return the declaration as TOML."""
        return "\n".join(_lines(self)) + "\n"

    def sample(self) -> str:
        """Return the episodes that the claims were drafted from, such as `50 of 900 episodes`."""
        of = "" if self.episodes == self.total else f" of {self.total}"
        return f"{self.episodes}{of} episodes"

    def todo(self) -> list[str]:
        """List the keys that the user must fill in."""
        return todos(parse_toml(self.text()))

    def to_json(self) -> dict[str, Any]:
        """Return every claim with its confidence and evidence, and the declaration as `text`."""
        claims = {"control_hz": self.clock.hz, "timestamp": self.clock.timestamp, "language": self.language}
        claims |= {"id": self.id, "robot": self.robot, "controller": self.controller, "embodiment": self.embodiment}
        return {
            "name": self.name,
            "source": dict(self.source),
            "claims": {key: claim.to_json() for key, claim in claims.items() if claim},
            "cameras": {role: {"key": path, **claim.to_json()} for role, (path, claim) in self.cameras.items()},
            "depth": dict(self.depth),
            "state": self.state.to_json() if self.state else None,
            "action": self.action.to_json() if self.action else None,
            "vectors": dict(self.vectors),
            "shipped": list(self.shipped),
            "notes": list(self.notes),
            "todo": self.todo(),
            "text": self.text(),
        }


def _lines(proposal: Proposal) -> Iterator[str]:
    yield HEAD.format(episodes=proposal.sample(), steps=proposal.steps, uri=_plain(str(proposal.source["uri"])))
    if proposal.shipped:
        names = ", ".join(proposal.shipped)
        yield f"# Shipped declarations that fit these fields ('oxe datasets show NAME'): {names}.\n"
    yield from (f"# {_plain(note)}\n" for note in proposal.notes)
    yield from _top(proposal)
    yield from _cameras(proposal)
    if not proposal.embodiment:
        yield from _embodiment(proposal)


def _embodiment(proposal: Proposal) -> Iterator[str]:
    yield "\n[embodiment]"
    yield f"name       = {_quoted(proposal.embodiment_name)}"
    yield _line("robot", _quoted(proposal.robot.value), proposal.robot)
    yield _line("controller", _quoted(proposal.controller.value), proposal.controller)
    if proposal.morphology != "single_arm":
        yield f"morphology = {_quoted(proposal.morphology)}"
    spaces = [(which, space) for which, space in (("state", proposal.state), ("action", proposal.action)) if space]
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


def _top(proposal: Proposal) -> Iterator[str]:
    yield f"name       = {_quoted(proposal.name)}"
    yield f"source     = {_value(proposal.source)}"
    hz = proposal.clock.hz
    yield _line("control_hz", _quoted(hz.value) if hz.is_open else hz.value, hz)
    claims = {"timestamp": proposal.clock.timestamp, "language": proposal.language}
    claims |= {"id": proposal.id, "success": proposal.success}
    for key, claim in claims.items():
        if claim:
            yield _line(key, _quoted(claim.value), claim)
    if proposal.embodiment:
        yield _line("embodiment", _quoted(proposal.embodiment.value), proposal.embodiment)
        yield from (f"{which:<10} = {_quoted(text)}" for which, text in proposal.vectors.items())
    elif proposal.action is None:
        yield f"action     = {{ derive = {_quoted(TODO)} }}  # {TODO}: {DERIVE}"


def _cameras(proposal: Proposal) -> Iterator[str]:
    if proposal.cameras:
        yield "\n[cameras]"
        yield from (_line(role, _quoted(path), claim) for role, (path, claim) in proposal.cameras.items())
    for role, path in proposal.depth.items():
        yield f"\n[depth.{_key(role)}]  # add metres_per_unit, the length of one unit in metres, if you know it"
        yield f"key        = {_quoted(path)}"


def _why(**claims: Claim) -> Iterator[str]:
    """Write comments with the evidence of the claims; consecutive claims with the same evidence share a line."""
    for claim, words in groupby(claims, key=lambda word: str(claims[word])):
        confidence, _, evidence = claim.partition(": ")
        yield f"# {', '.join(words)} ({confidence}): {_plain(evidence)}"


def _line(key: str, value: str, claim: Claim) -> str:
    return f"{_key(key):<10} = {value}  # {_plain(str(claim))}"


def _plain(text: str) -> str:
    """Convert a text from the source to one printable line, without the secrets of its URIs."""
    return shown(" ".join(text.split()))


def _key(word: str) -> str:
    return word if BARE.fullmatch(word) else _quoted(word)


def _quoted(text: str) -> str:
    """Write a TOML string; what cannot be printed is escaped."""
    return "".join(
        char if char.isprintable() else f"\\U{ord(char):08x}" for char in json.dumps(text, ensure_ascii=False)
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)
