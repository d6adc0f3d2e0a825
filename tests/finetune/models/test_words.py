"""The small tokenizer is the same each time, and can say everything."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.actions import ActionTokenizer
from finetune.models.processor import prompt
from finetune.models.words import SPACE, tokenizer

WORDS = tokenizer()


def test_it_is_the_same_each_time() -> None:
    assert tokenizer().backend_tokenizer.to_str() == WORDS.backend_tokenizer.to_str()
    told = repr(sorted(WORDS.get_vocab().items()))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "eff95a0682823a7b"


def test_a_usual_prompt_takes_one_token_a_word() -> None:
    ids = WORDS(prompt("put the spoon on the towel")).input_ids
    said = WORDS.convert_ids_to_tokens(ids)
    assert said[0] == "<s>"
    assert [word.removeprefix(SPACE) for word in said[10:16]] == ["put", "the", "spoon", "on", "the", "towel"]


@given(st.text())
def test_any_text_comes_back_and_no_text_is_an_action(text: str) -> None:
    ids = WORDS(text, add_special_tokens=False).input_ids
    assert max(ids, default=0) < WORDS.vocab_size - 256
    assert WORDS.decode(ids) == text


def test_the_actions_are_the_last_words_and_the_padding_comes_after_them() -> None:
    actions = ActionTokenizer(WORDS.vocab_size)
    ids = actions.encode([-1.0, 1.0])
    assert WORDS.convert_ids_to_tokens(ids.tolist()) == ["<action 255>", "<action 0>"]
    assert WORDS.pad_token_id == WORDS.vocab_size == len(WORDS) - 1
