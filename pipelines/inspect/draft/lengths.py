"""Fields whose number of rows is not that of the action, and the keys of `source` for them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.inspect.draft.choose import choose_fields
from pipelines.inspect.draft.sample import Sample
from pipelines.readers.reader import Reader
from schemas.declarations.formats import BUILT_IN

MAX_LISTED = 5  # names in a note


@dataclass(frozen=True, slots=True)
class OddField:
    """A field with another number of rows than the action has steps, in some of the first episodes."""

    path: str
    rows: tuple[int, ...]  # number in each episode
    steps: tuple[int, ...]  # number of steps of the action in the same episodes
    is_image: bool

    @property
    def is_longer(self) -> bool:
        """Whether it has one row more than the action in every episode."""
        return all(count == steps + 1 for count, steps in zip(self.rows, self.steps, strict=True))

    @property
    def is_whole(self) -> bool:
        """Whether it can be a value of the whole episode: it has the same number of rows in every episode."""
        return not self.is_longer and not self.is_image and len({*self.rows}) == 1


def odd_fields(sample: Sample) -> list[OddField]:
    """Return the fields whose number of rows differs from that of the action.

    If there is no action, the most frequent number of rows takes its place.
    """
    paths = sorted(set().union(*sample.episodes))
    rows = {path: {i: len(e[path]) for i, e in enumerate(sample.episodes) if path in e} for path in paths}
    actions = choose_fields(sample, "action")[0]
    steps = rows[actions[0]] if actions else _most_frequent([*rows.values()])
    rows |= {path: dict(enumerate(counts)) for path, counts in sample.rows.items() if path not in rows}
    odd = []
    for path, counts in rows.items():
        both = [i for i in counts if i in steps]
        pair = tuple(counts[i] for i in both), tuple(steps[i] for i in both)
        if pair[0] != pair[1]:
            odd.append(OddField(path, *pair, sample.fields[path].kind == "image"))
    return odd


def _most_frequent(rows: Sequence[dict[int, int]]) -> dict[int, int]:
    counts = Counter(tuple(row.items()) for row in rows)
    best = max(((number, sum(count for _, count in row), row) for row, number in counts.items()), default=(0, 0, ()))
    return dict(best[2])


def layout(reader: Reader, odd: Sequence[OddField]) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of the table `source`, and notes.

    The key `drop_last` skips the last row of fields that have one row more than the action, and `per_episode` reads
    fields with the same number of rows in every episode as values of the episode. Only fields that are neither, and
    cameras, are skipped, with the key `ignore`. The notes say how many fields are concerned, and why.
    """
    keys = dict(reader.layout())
    known = BUILT_IN[reader.format].model_fields if reader.format in BUILT_IN else {}
    notes, rest = [], list(odd)
    for key, what, why, chosen in (
        ("drop_last", "their last row is not read", "one row more than the action", [f for f in odd if f.is_longer]),
        ("per_episode", "values of the episode", "the same number of rows in each", [f for f in odd if f.is_whole]),
        ("ignore", "not read", "other numbers of rows than steps", [f for f in odd if not f.is_longer]),
    ):
        fields = [field for field in chosen if field in rest and key in known]
        if fields:
            keys[key] = sorted({*keys.get(key, ()), *(field.path for field in fields)})
            notes.append(f"source.{key}: {what} ({len(fields)}, with {why}): {_listed(fields)}.")
            rest = [field for field in rest if field not in fields]
    if rest:
        notes.append(f"Episodes will be quarantined, because the action has another number of steps: {_listed(rest)}.")
    return keys, notes


def _listed(fields: Sequence[OddField]) -> str:
    """List fields, each with its rows and the steps of the action in one episode."""
    shown = [f"{field.path} (rows: {field.rows[0]}, steps: {field.steps[0]})" for field in fields[:MAX_LISTED]]
    more = [f"{len(fields) - MAX_LISTED} more"] if len(fields) > MAX_LISTED else []
    return ", ".join([*shown, *more])
