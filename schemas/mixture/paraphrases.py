"""Paraphrases: other texts for an instruction. A drawn step gets its instruction or one of them, as likely as another.

The choice depends only on the seed and the number of the draw, as the order of draws does.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from schemas.errors import SpecError, did_you_mean
from schemas.mixture.sampling import chosen
from schemas.source import Array


def checked(paraphrases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the same paraphrases.

    Raises ValueError if a text is empty, or the same as its instruction or another paraphrase of it. Case and spaces do
    not count, because the prompt is in lower case.
    """
    for instruction, texts in paraphrases.items():
        if not texts:
            raise ValueError(f"'{instruction}': has no paraphrases; name at least one, or leave the instruction out")
        seen: dict[str, str] = {}
        for text in (instruction, *texts):
            plain = " ".join(text.casefold().split())
            if not plain:
                what = "an instruction is" if text is instruction else f"a paraphrase of '{instruction}' is"
                raise ValueError(f"{what} empty; a policy cannot be taught it")
            if plain in seen:
                raise ValueError(f"'{instruction}': '{text}' is the same as '{seen[plain]}'; remove one of them")
            seen[plain] = text
    return paraphrases


def check_known(paraphrases: Iterable[str], known: Collection[str], *, where: str) -> None:
    """Raise SpecError if an instruction with paraphrases is not in `known`, the instructions of a mixture's steps."""
    for instruction in paraphrases:
        if instruction not in known:
            raise SpecError(
                f"{where}: paraphrases: no step of the mixture has the instruction "
                f"'{instruction}'{did_you_mean(instruction, known)}"
            )


def paraphrased(
    texts: Sequence[str], paraphrases: Mapping[str, tuple[str, ...]], *, seed: int, draws: Array
) -> tuple[str, ...]:
    """Return a text for each draw: its instruction, or one of the paraphrases of it. `draws` are their numbers, [N].

    >>> paraphrased(["go"] * 6, {"go": ("move", "walk")}, seed=0, draws=np.arange(6))
    ('move', 'walk', 'go', 'walk', 'walk', 'walk')
    """
    options = [(text, *paraphrases.get(text, ())) for text in texts]
    picks = chosen(seed, draws, np.array([*map(len, options)], np.uint64), use="paraphrase")
    return tuple(option[pick] for option, pick in zip(options, picks.tolist(), strict=True))
