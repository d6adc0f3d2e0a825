import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SourceError, UsageError
from schemas.text import masked, masked_json, shown

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    line = shown(text)
    assert line.isprintable()
    assert shown(line) == line


@given(st.text(st.characters(categories=("L", "N"))))
def test_plain_words_are_shown_as_they_are(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("s3://me:pass@host/x", "s3://me:***@host/x"),
        ("s3://me:p@ss@host/x", "s3://me:***@host/x"),
        ("sftp://:pass@host", "sftp://:***@host"),
        ("https://ghp_x@host/x", "https://***@host/x"),
        ("https://h/x?a=1&sig=s3cr%2Ft&b=2", "https://h/x?a=1&sig=***&b=2"),
        (
            "https://h/x?X-Amz-Signature=abc&X-Amz-Credential=k%2F1",
            "https://h/x?X-Amz-Signature=***&X-Amz-Credential=***",
        ),
        ("https://h/x?AWSAccessKeyId=k&Signature=s", "https://h/x?AWSAccessKeyId=***&Signature=***"),
        ("https://h/x?access_token=t#part", "https://h/x?access_token=***#part"),
        ("Authorization: Bearer abcdefghijk", "Authorization: Bearer ***"),
        ("key AKIAABCDEFGHIJKLMNOP", "key AKIA***"),
        ("hf_abcdefghijklmnopqrstuv", "hf_***"),
        ('Invalid bucket name "me:pass@bucket"', 'Invalid bucket name "me:***@bucket"'),
    ],
)
def test_secrets_are_hidden(text: str, hidden: str) -> None:
    assert masked(text) == hidden
    assert masked(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/a/b@c?part=1&design=2",
        "/data/run_12:30/x.h5: byte 7: bad",
        "user@host",
        "action[:3] | clip(0, 1)",
        "sigma=1&design=2",
    ],
)
def test_other_texts_are_kept(text: str) -> None:
    assert masked(text) == text


def test_secrets_are_hidden_in_json() -> None:
    value = {"source": "s3://a:secret@b", "more": [{"uri": "https://x?token=secret"}], "n": 1, "none": None}
    assert "secret" not in json.dumps(masked_json(value))
    assert masked_json(value)["n"] == 1


def test_every_error_is_safe_to_print() -> None:
    error = SourceError("no \x1b[31m\n'x'", file="s3://a:secret@b/\u202ex", reason="unreadable")
    assert str(error) == "s3://a:***@b/\\u202ex: no \\x1b[31m\\n'x'"
    assert error.at(prefix="demo\n").message == "demo\\n: no \\x1b[31m\\n'x'"
    assert str(UsageError("one", "two\n")) == "one\ntwo\\n"
