"""`Verdict`: whether the recorded motion agrees with one aspect of a declaration, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from schemas.source import Array

Aspect: TypeAlias = Literal["kind", "frame", "axes", "scale", "gripper", "rotation", "lag"]
ASPECTS: tuple[Aspect, ...] = ("kind", "frame", "axes", "scale", "gripper", "rotation", "lag")
Word: TypeAlias = Literal["pass", "contradicts", "undetermined"]

SURE, CERTAIN = 0.95, 0.99  # shares of resampled sets of episodes: for `pass`, and for `contradicts`
RESAMPLED, SEED = 200, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the motion says about one aspect."""

    verdict: Word
    confidence: float  # share of resampled sets of episodes that say the same; 0 if nothing was compared
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a report."""
        return {"verdict": self.verdict, "confidence": round(self.confidence, 3), "evidence": self.evidence}


def undetermined(why: str, confidence: float = 0.0) -> Verdict:
    """Return a verdict that says nothing, with the reason."""
    return Verdict(verdict="undetermined", confidence=confidence, evidence=why)


def verdict(share: float, evidence: str, *, agrees: bool, is_clear: bool = True) -> Verdict:
    """Return `pass` or `contradicts` if the share of resampled sets is large enough and the fit is clear."""
    word: Word = "pass" if agrees else "contradicts"
    if not is_clear or share < (SURE if agrees else CERTAIN):
        return undetermined(evidence, share)
    return Verdict(verdict=word, confidence=share, evidence=evidence)


def joined(verdicts: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Join the verdicts about the parts of a vector: one contradiction is enough, and `pass` needs all of them."""
    if not verdicts:
        return undetermined("no dimensions of the action and the state can be compared")
    for word in ("contradicts", "undetermined", "pass"):
        chosen = [(part, one) for part, one in verdicts if one.verdict == word]
        if chosen:
            evidence = "; ".join(f"{part}: {one.evidence}" for part, one in chosen)
            return Verdict(
                verdict=chosen[0][1].verdict, confidence=min(one.confidence for _, one in chosen), evidence=evidence
            )
    raise AssertionError(verdicts)


def resampled(episodes: int) -> Array:
    """Return how often each episode is in each resampled set, [RESAMPLED, E]."""
    return np.random.default_rng(SEED).multinomial(episodes, np.full(episodes, 1 / episodes), RESAMPLED).astype(float)
