"""A paraphrase is drawn from the seed and the draw alone, and as often as the instruction itself."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from schemas.errors import SpecError
from schemas.mixture.paraphrases import paraphrased
from schemas.mixture.sampling import Law
from schemas.mixture.spec import load

MIX = 'name = "x"\nweighting = "share"\n[weights]\na = 1.0\n[paraphrases]\n'
TABLE = {"close the pot": ("shut the pot", "put the lid on the pot"), "open it": ("unlid it",)}


def drawn(draws: np.ndarray, *, text: str = "close the pot", seed: int = 0) -> tuple[str, ...]:
    return paraphrased([text] * len(draws), TABLE, seed=seed, draws=draws)


@pytest.mark.parametrize("seed", [0, 1, 2**63])
@pytest.mark.parametrize("text", TABLE)
def test_the_instruction_and_its_paraphrases_are_equally_likely(text: str, seed: int) -> None:
    counts = Counter(drawn(np.arange(30_000), text=text, seed=seed))
    assert counts.keys() == {text, *TABLE[text]}
    assert chisquare([*counts.values()]).pvalue > 1e-4


def test_neither_neighbouring_draws_nor_neighbouring_seeds_go_together() -> None:
    first, second = drawn(np.arange(20_000)), drawn(np.arange(20_000), seed=1)
    for pairs in (pairwise(first), zip(first, second, strict=True)):
        counts = Counter(pairs)
        assert len(counts) == 9
        assert chisquare([*counts.values()]).pvalue > 1e-4


def test_the_paraphrase_does_not_depend_on_the_source_that_is_drawn() -> None:
    law = Law(seed=3, names=("a", "b", "c"), shares=(0.2, 0.3, 0.5), sizes=(7, 8, 9))
    sources, texts = law.sources(0, 30_000), drawn(np.arange(30_000), seed=3)
    for source, share in enumerate(law.shares):
        counts = Counter(text for text, own in zip(texts, sources.tolist(), strict=True) if own == source)
        assert sum(counts.values()) == pytest.approx(30_000 * share, rel=0.05)
        assert chisquare([*counts.values()]).pvalue > 1e-4


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=20), st.randoms())
def test_a_draw_gets_its_text_in_whatever_batch_it_is(seed: int, draws: list[int], random: object) -> None:
    texts = [[*TABLE, "other", ""][draw % 4] for draw in draws]
    whole = paraphrased(texts, TABLE, seed=seed, draws=np.array(draws))
    order = list(range(len(draws)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = paraphrased([texts[i] for i in order], TABLE, seed=seed, draws=np.array(draws)[order])
    assert [whole[i] for i in order] == [*again]
    alone = [paraphrased([t], TABLE, seed=seed, draws=np.array([k]))[0] for t, k in zip(texts, draws, strict=True)]
    assert alone == [*whole]
    assert all(out in {text, *TABLE.get(text, ())} for text, out in zip(texts, whole, strict=True))


def test_no_draw_gives_no_text() -> None:
    assert paraphrased([], TABLE, seed=0, draws=np.array([], np.int64)) == ()


def test_an_empty_table_is_none() -> None:
    assert "paraphrases" not in load(MIX, where="x.toml").to_json()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"close" = []', r"paraphrases: 'close': has no paraphrases; name at least one"),
        ('"close" = ["shut", ""]', r"paraphrases: a paraphrase of 'close' is empty"),
        ('"close" = [" \\t"]', r"paraphrases: a paraphrase of 'close' is empty"),
        ('"" = ["shut"]', r"paraphrases: an instruction is empty"),
        ('" " = ["shut"]', r"paraphrases: an instruction is empty"),
        ('"close" = ["shut", "shut"]', r"paraphrases: 'close': 'shut' is the same as 'shut'"),
        ('"close" = ["shut", "stop", " Shut "]', r"paraphrases: 'close': ' Shut ' is the same as 'shut'"),
        ('"close  it" = ["Close it"]', r"paraphrases: 'close  it': 'Close it' is the same as 'close  it'"),
        ('"close" = "shut"', r"paraphrases.close: "),
        ('"close" = [1]', r"paraphrases.close"),
        ('"close" = ["shut"]\n"close" = ["stop"]', r"close"),
    ],
)
def test_what_is_no_table_of_paraphrases_says_why(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(MIX + line, where="x.toml")
