"""Judge the aspects of one part of a vector: kind, frame, axes, scale, lag, and the representation of a rotation."""

from collections.abc import Sequence
from functools import cached_property
from itertools import permutations, product

import numpy as np

from pipelines.conventions.hypotheses import DELAYS, Frame, PartMotion, Relation
from pipelines.conventions.moments import SecondMoments
from pipelines.conventions.parts import unit
from pipelines.conventions.representation import RepresentationJudge
from pipelines.conventions.rotations import DEGREE
from pipelines.conventions.verdicts import Aspect, Verdict, undetermined, verdict
from schemas.source import Array
from schemas.spaces import Space

ANGLES = 3  # numbers of a rotation in angles
MIN_R2 = 0.35  # share of the motion that a hypothesis must explain
TARGET_R2 = 0.8  # the same for targets: slow states correlate with many numbers
CLEARER = 0.7  # largest unexplained share of the better hypothesis, relative to that of the other
AXES_GAIN = 0.1  # least difference of the scores of two assignments of axes
FOLLOWS, SWAPPED = 0.5, 0.9  # correlations: of a joint with its command; of one with the command of another joint
QUIET = 0.02  # an axis with less than this share of the largest motion is not judged
AGREES, CONTRADICTS = (1 / 10, 3.0), (1 / 25, 6.0)  # factors from command to motion; soft controllers move less
AGREES_TARGET, CONTRADICTS_TARGET = (1 / 1.3, 1.3), (1 / 2, 2.0)
UNSCALED = {"controller", "unknown", "travel", "1"}  # units without a common size
KNOWN_FACTORS = (
    (1000.0, "millimetres and metres"),
    (100.0, "centimetres and metres"),
    (180 / np.pi, "degrees and radians"),
)
FRAMES: dict[str, Frame] = {"base": "base", "world": "base", "tool": "tool"}


class PartJudge:
    """The aspects of one part."""

    def __init__(self, motion: PartMotion, weights: Array, *, action: Space, state: Space, hz: float | None) -> None:
        """Take the motion of the part, and the resampled sets of episodes `weights` [B, E]."""
        self.motion, self.weights, self.hz = motion, weights, hz
        self.action, self.state = action, state
        self.degrees = self._degrees()
        self.frame_used: Frame = FRAMES.get(
            action.frame, "base"
        )  # the frame of changes; set if the declared one is contradicted

    def verdicts(self) -> dict[Aspect, Verdict]:
        """Judge the aspects for which no other part is needed, and not the representation of a rotation."""
        return {"kind": self.kind, "axes": self.axes(), "scale": self.degrees or self.scale(), "lag": self.lag()}

    @cached_property
    def change(self) -> Relation:
        """The commands as changes, in the frame that explains more."""
        return max(self.motion.changes.values(), key=lambda relation: relation.r2)

    @cached_property
    def kind(self) -> Verdict:
        """Whether commands are changes or targets, as declared."""
        change, target = self.change.best, self.motion.targets.best
        is_target = self.motion.targets.r2 > self.change.r2
        better, other = (target, change) if is_target else (change, target)
        first, second = float(better.total.r2), float(other.total.r2)
        share = float((better.weighted(self.weights).r2 > other.weighted(self.weights).r2).mean())
        is_clear = first >= (TARGET_R2 if is_target else MIN_R2) and 1 - first <= CLEARER * (1 - max(second, 0))
        names = ("targets", "changes") if is_target else ("changes", "targets")
        evidence = f"as {names[0]}, commands explain {first:.0%} of the motion, as {names[1]} {second:.0%}"
        if self.motion.declared == "unknown":
            return undetermined(f"the mode is declared unknown; {evidence}", share)
        return verdict(share, evidence, agrees=is_target == (self.motion.declared == "absolute"), is_clear=is_clear)

    @property
    def is_target(self) -> bool:
        """Whether commands are judged as targets: as declared, unless that is contradicted or unknown."""
        if self.motion.declared == "unknown" or self.kind.verdict == "contradicts":
            return self.motion.targets.r2 > self.change.r2
        return self.motion.declared == "absolute"

    @property
    def relation(self) -> Relation:
        """The hypothesis for the other aspects: as declared, unless that is contradicted."""
        if self.is_target:
            return self.motion.targets
        return self.motion.changes.get(self.frame_used, self.motion.changes["base"])

    def axes(self) -> Verdict:
        """Whether each command moves the dimension of its name, in its direction."""
        if self.relation.r2 < MIN_R2:
            return undetermined(f"commands explain only {self.relation.r2:.0%} of the motion")
        drawn = self.relation.best.weighted(self.weights)
        names = [self.action.dims[i].name for i in self.motion.part.action]
        moving = moves(self.relation.best.total)
        quiet = [name for name, is_moving in zip(self._names(), moving, strict=True) if not is_moving]
        if self.motion.part.kind == "joint":
            return self._joints(drawn, names, moving)
        best, gain = self._assignment
        chosen = scores(drawn.shares, moving).argmax(axis=-1)
        share = float((chosen == best).mean())
        if best == 0:
            evidence = f"each of {', '.join(names)} moves as its name says"
            if quiet:
                return undetermined(f"{', '.join(quiet)} hardly moves", share)
            return verdict(share, evidence, agrees=True)
        return verdict(
            float((chosen != 0).mean()), _said(best, self._names()), agrees=False, is_clear=gain >= AXES_GAIN
        )

    def _names(self) -> list[str]:
        named = [self.action.dims[i].name for i in self.motion.part.action]
        return named if len(named) == self.relation.motions.shape[1] else ["x", "y", "z"]

    @cached_property
    def _assignment(self) -> tuple[int, float]:
        """Return the number of the best assignment of axes, and how much better it is than the declared one."""
        total = self.relation.best.total
        every = scores(total.shares, moves(total))
        best = int(every.argmax())
        return best, float(every[best] - every[0])

    def _joints(self, drawn: SecondMoments, names: Sequence[str], moving: Array) -> Verdict:
        """Judge the sign of each joint by its own command, and whether it follows that of another joint instead."""
        whole, resampled = self.relation.best.total.correlations, drawn.correlations
        own, own_drawn = np.diagonal(whole), np.diagonal(resampled, axis1=-2, axis2=-1)
        for joint in np.flatnonzero(moving & (own < -FOLLOWS)).tolist():
            share = float((own_drawn[:, joint] < 0).mean())
            return verdict(share, f"{names[joint]} moves against its command", agrees=False)
        for joint in np.flatnonzero(moving & (own < FOLLOWS)).tolist():
            other = int(np.argmax(np.abs(whole[:, joint]) * moving))
            if abs(whole[other, joint]) >= SWAPPED and own[other] < FOLLOWS:
                share = float((np.abs(resampled[:, other, joint]) > np.abs(own_drawn[:, joint])).mean())
                return verdict(share, f"{names[joint]} moves by the command of {names[other]}", agrees=False)
        total = self.relation.best.total
        is_used = (np.diagonal(total.xx) > 0) | (total.yy > 0)
        unclear = [
            name for name, is_clear in zip(names, ~is_used | (moving & (own > FOLLOWS)), strict=True) if not is_clear
        ]
        if unclear or not moving.any():
            return undetermined(f"{', '.join(unclear)} hardly moves, or not as commanded")
        return verdict(
            float((own_drawn[:, moving] > 0).all(axis=1).mean()), "each joint moves as commanded", agrees=True
        )

    def scale(self) -> Verdict:
        """Whether a command has the size of the motion that it causes."""
        units = unit(self.action, self.motion.part.action), unit(self.state, self.motion.part.state)
        relation = self.relation
        if relation.r2 < MIN_R2:
            return undetermined(f"commands explain only {relation.r2:.0%} of the motion")
        drawn = relation.best.weighted(self.weights)
        if self.motion.part.kind == "joint":
            whole, factors = _of_joints(relation.best.total), _of_joints(drawn)
            if not whole:
                return undetermined("no joint follows its command")
        else:
            _, signs, columns = _orders()[self._assignment[0]]
            whole, factors = (_factor(one, columns, signs) for one in (relation.best.total, drawn))
        measured = f"a command of 1 moves {float(whole):.3g}"
        expected = 1.0
        if units[0] in UNSCALED:
            return undetermined(f"the unit of the command is '{units[0]}'; {measured} {units[1]}")
        if not self.is_target and self.motion.declared == "velocity":
            if not self.hz:
                return undetermined("velocities need control_hz")
            expected = 1 / self.hz
        factor, factors = float(whole) / expected, factors / expected
        agrees, contradicts = (AGREES_TARGET, CONTRADICTS_TARGET) if self.is_target else (AGREES, CONTRADICTS)
        evidence = f"the motion is {factor:.3g} times the command{_known(factor, self.hz)}"
        if agrees[0] <= factor <= agrees[1]:
            share = float(((factors >= contradicts[0]) & (factors <= contradicts[1])).mean())
            return verdict(share, evidence, agrees=True)
        share = float(((factors < agrees[0]) | (factors > agrees[1])).mean())
        return verdict(share, evidence, agrees=False, is_clear=not contradicts[0] <= factor <= contradicts[1])

    @cached_property
    def representation(self) -> RepresentationJudge:
        """The judge of the representation of commanded rotations."""
        is_tool = self.relation is self.motion.changes.get("tool")
        return RepresentationJudge(self.motion, is_target=self.is_target, is_tool=is_tool, delay=self.relation.delay)

    def _degrees(self) -> Verdict | None:
        """Contradict radians if commanded rotations are targets that only make sense in degrees; None otherwise."""
        is_angles = self.motion.part.kind == "rotation" and len(self.motion.part.action) == ANGLES
        if not is_angles or self.motion.declared != "absolute" or self.motion.turned is None:
            return None
        motion = PartMotion(
            self.motion.part,
            self.motion.steps,
            action=self.action,
            state=self.state,
            form=self.motion.form,
            factor=DEGREE,
        )
        first, second = self.motion.targets, motion.targets
        share = float((second.best.weighted(self.weights).r2 > first.best.weighted(self.weights).r2).mean())
        evidence = f"commands explain {first.r2:.0%} of the rotation in radians, and {second.r2:.0%} in degrees"
        is_clear = first.r2 < MIN_R2 and second.r2 >= TARGET_R2
        judged = verdict(share, evidence, agrees=False, is_clear=is_clear)
        return judged if judged.verdict == "contradicts" else None

    def lag(self) -> Verdict:
        """How many steps the motion comes after its command; before it contradicts."""
        relation = self.relation
        if relation.r2 < MIN_R2:
            return undetermined(f"commands explain only {relation.r2:.0%} of the motion")
        drawn = np.stack([relation.by_delay[delay].weighted(self.weights).r2 for delay in DELAYS])
        delays = np.array(DELAYS)[drawn.argmax(axis=0)]
        is_early = relation.delay < 0
        share = float((delays < 0).mean() if is_early else (delays >= 0).mean())
        time = f" ({abs(relation.delay) / self.hz:.3g} s)" if self.hz else ""
        said = "before" if is_early else "after"
        evidence = f"the motion comes {abs(relation.delay)} steps{time} {said} its command"
        return verdict(share, evidence, agrees=not is_early)


def moves(total: SecondMoments) -> Array:
    """Return whether each dimension is commanded and moves enough to be judged, [K] bool."""
    commanded, moved = np.diagonal(total.xx), total.yy
    is_square = len(commanded) == len(moved)
    moves = np.sqrt(moved) > QUIET * np.sqrt(moved.max(initial=0))
    return np.asarray(moves & (np.sqrt(commanded) > QUIET * np.sqrt(commanded.max(initial=0))) if is_square else moves)


def _orders() -> list[tuple[tuple[int, ...], Array, Array]]:
    """Return the 48 assignments of commands to axes, with signs. In the first, each moves the axis of its name."""
    return [
        (order, np.array(signs, float), np.array(order))
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ]


def scores(shares: Array, moves: Array) -> Array:
    """Return how well each assignment explains the motion, [..., 48]: the mean share over the axes that move."""
    axes = np.flatnonzero(moves) if moves.any() else np.arange(len(moves))
    scores = [(shares[..., columns[axes], axes] * signs[axes]).mean(axis=-1) for _, signs, columns in _orders()]
    return np.stack(scores, axis=-1)


def _said(best: int, names: Sequence[str]) -> str:
    order, signs, _ = _orders()[best]
    words = []
    for axis, (command, sign) in enumerate(zip(order, signs.tolist(), strict=True)):
        if command != axis:
            words.append(f"{names[axis]} moves by {'minus ' if sign < 0 else ''}the command of {names[command]}")
        elif sign < 0:
            words.append(f"{names[axis]} is negated")
    return ", ".join(words)


def _factor(moments: SecondMoments, columns: Array, signs: Array) -> Array:
    """Return the one factor from commands to motions for an assignment of axes, [...]."""
    axes = np.arange(len(columns))
    along = (moments.xy[..., columns, axes] * signs).sum(axis=-1)
    size = moments.xx[..., columns, columns].sum(axis=-1)
    return np.asarray(np.divide(along, size, out=np.zeros(np.shape(size)), where=size > 0))


def _of_joints(moments: SecondMoments) -> Array:
    """Return the median factor of the joints that follow their commands, [...]; 0 without any."""
    own = np.diagonal(moments.correlations, axis1=-2, axis2=-1)
    size = np.diagonal(moments.xx, axis1=-2, axis2=-1)
    along = np.diagonal(moments.xy, axis1=-2, axis2=-1)
    follows = (np.abs(own) > FOLLOWS) & (size > 0)
    factors = np.divide(along, size, out=np.full(own.shape, np.nan), where=follows)
    factors[~follows.any(axis=-1)] = 0
    return np.asarray(np.nanquantile(factors, 0.5, axis=-1, method="lower"))


def _known(factor: float, hz: float | None) -> str:
    """Name the factor between two usual units, if it is close to one."""
    known = [*KNOWN_FACTORS, *([(hz, "a velocity and a change for each step")] if hz else [])]
    size = max(factor, 1 / factor) if factor > 0 else 1.0
    near = [(abs(np.log(size / value)), words) for value, words in known if value > 4]
    distance, words = min(near, default=(np.inf, ""))
    return f", about as for {words}" if distance < np.log(3) and size > 4 else ""
