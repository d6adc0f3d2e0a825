"""The rules that read the table of episodes: outcomes, instructions, and episodes that could not be converted."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.checks.batch import About
from pipelines.checks.findings import RuleFinding
from schemas.store import layout
from schemas.store.dataset import Dataset

QUARANTINED = {  # reason of a quarantined episode -> the rule that would have found it
    "non_finite_action": "non_finite",
    "non_finite_state": "non_finite",
    "bad_timestamps": "timestamp_gap",
}
PLACEHOLDERS = re.compile(
    r"(?:the |a |some )?(?:task|instruction|language|prompt|text|default|placeholder|dummy|test|example|episode|demo|"
    r"unnamed|untitled|description|no|todo|tbd|fixme|none|null|nan|n/a|na|unknown|empty|string|foo|bar|asdf|xxx+|"
    r"lorem ipsum.*)(?:[ _-]*(?:task|instruction|description|name|text|prompt|here|given|available))*[ _-]*\d*",
    re.IGNORECASE,
)
UNFILLED = re.compile(r"\{[^{}]*\}|<[^<>]*>|\[[^\[\]]*\]|%s|\$\w+|\ufffd")


def of_table(about: About, dataset: Dataset) -> Iterator[RuleFinding]:
    """Apply the rules to a dataset."""
    table = dataset.episodes.select("instructions", "outcome").collect()
    texts: list[list[str]] = [[text or "" for text in row or ()] for row in table["instructions"].to_list()]
    total = len(texts)
    unknown = [i for i, outcome in enumerate(table["outcome"].to_list()) if outcome == "unknown"]
    no_outcome = "no outcome is recorded, so it may be a failure"
    yield from _of_many(RuleFinding(member=about.member, rule="outcome_unknown", message=no_outcome), unknown, of=total)
    missing = [i for i, row in enumerate(texts) if not any(text.strip() for text in row)]
    no_text = "there is no instruction"
    yield from _of_many(RuleFinding(member=about.member, rule="language_missing", message=no_text), missing, of=total)
    yield from _templates(about, texts)
    yield from _quarantined(about, dataset)


def _of_many(finding: RuleFinding, episodes: Sequence[int], *, of: int) -> Iterator[RuleFinding]:
    """Yield a finding for each episode, or one for the whole dataset if it is about all `of` several episodes."""
    if len(episodes) == of > 1:
        yield replace(finding, value=1.0, message=f"all {of} episodes: {finding.message}")
    else:
        yield from (replace(finding, episode=episode) for episode in episodes)


def _templates(about: About, texts: Sequence[Sequence[str]]) -> Iterator[RuleFinding]:
    """Find placeholders, texts that were not filled in, one text for nearly all tasks, and one text spelled twice."""
    counts = Counter(text for row in texts for text in dict.fromkeys(row) if text.strip())
    why = {text: reason for text in counts if (reason := what_is_wrong(text))}
    by_reason: dict[str, list[int]] = {}
    for i, row in enumerate(texts):
        for reason in dict.fromkeys(why[text] for text in row if text in why):
            by_reason.setdefault(reason, []).append(i)
    whole: dict[str, Any] = {"member": about.member, "rule": "language_template"}
    for reason, episodes in by_reason.items():
        yield from _of_many(RuleFinding(**whole, message=reason), episodes, of=len(texts))
    if len(counts) > 1:
        text, count = counts.most_common(1)[0]
        if count > about.rules.language_template.share * len(texts) and not why.get(text):
            message = (
                f"{count} of {len(texts)} episodes have the instruction '{text}', the others {len(counts) - 1} more"
            )
            yield RuleFinding(**whole, value=count / len(texts), message=message)
    spellings: dict[str, list[str]] = {}
    for text in counts:
        spellings.setdefault(" ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip("."), []).append(
            text
        )
    twice = [sorted(group) for group in spellings.values() if len(group) > 1]
    if twice:
        named = "; ".join(" and ".join(f"'{text}'" for text in group) for group in sorted(twice)[:3])
        message = f"{len(twice)} instructions are spelled in several ways, such as {named}"
        yield RuleFinding(**whole, value=float(len(twice)), message=message)


def what_is_wrong(text: str) -> str | None:
    """Return why an instruction says nothing about the task, or None.

    >>> what_is_wrong("task_12")
    "the instruction is the placeholder 'task_12'"
    >>> what_is_wrong("pick up the {object}")
    "the instruction has a part that was not filled in: 'pick up the {object}'"
    >>> what_is_wrong("put the spoon on the towel")
    """
    stripped = text.strip()
    if PLACEHOLDERS.fullmatch(stripped) or (stripped and not any(char.isalpha() for char in stripped)):
        return f"the instruction is the placeholder '{stripped}'"
    if UNFILLED.search(stripped):
        return f"the instruction has a part that was not filled in: '{stripped}'"
    return None


def _quarantined(about: About, dataset: Dataset) -> Iterator[RuleFinding]:
    """Name the episodes of the source that were not converted because of what a rule looks for."""
    if not QUARANTINED.keys() & dataset.manifest["balance"]["quarantined"].keys():
        return
    table = pq.ParquetFile(pa.py_buffer(dataset.read_listed(layout.QUARANTINE))).read(use_threads=False)
    for row in table.to_pylist():
        if row["reason"] in QUARANTINED:
            message = f"episode {row['episode_index']} of the source was quarantined: {row['detail']}"
            yield RuleFinding(member=about.member, rule=QUARANTINED[row["reason"]], message=message)
