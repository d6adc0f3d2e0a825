"""Guess the pattern of the episodes' groups in trees of groups and arrays: HDF5 files and Zarr stores."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.readers.patterns import below, has_style, matches, siblings
from pipelines.readers.survey import (
    LENGTHS,
    MAX_DEPTH,
    MAX_NAMES,
    NONE,
    NUMBERED,
    WORDS,
    Level,
    Looks,
    Survey,
    Tree,
    arrays_below,
    looks_of,
)
from schemas.errors import UsageError

MAX_MATCHES = 1000  # matches of a pattern that are compared with the episodes
MAX_IGNORED = 20  # groups beside the episodes that a guess lists in `ignore`
SIMILAR = 0.5  # share of the other episodes' arrays that a damaged episode still has
RIVAL = 0.25  # share of the episodes' numbers that other groups may have before they count as episodes, too
WHY = {
    NUMBERED: "groups with different names that look the same",
    LENGTHS: "groups that look the same but differ in length",
}


@dataclass(frozen=True, slots=True)
class EpisodeGroups:
    """The guess: where the episodes are, why, and what they look like."""

    pattern: str  # "/" if each file is one episode
    why: str
    looks: Looks = frozenset()
    ignore: tuple[str, ...] = ()  # what the pattern matches besides episodes; paths that start with a slash

    def reasons(self, per_episode: Sequence[str], *, episodes: int) -> dict[str, str]:
        """Return why three keys were guessed; `episodes` is the number of episodes that were compared."""
        why = {"episodes": f"'{self.pattern}', {self.why}"}
        if self.ignore:
            why["ignore"] = f"{listed(self.ignore)}, because it matches '{self.pattern}' and looks different"
        if per_episode:
            why["per_episode"] = f"{listed(per_episode)}, arrays without a row per step in {episodes} episodes"
        return why


def guess_groups(trees: Mapping[str, Tree], *, where: str) -> EpisodeGroups:
    """Guess the pattern of the episodes from the first files of a source.

    Raises UsageError, which starts with `where`, if several patterns are equally good, or if no pattern matches all
    groups that look the same.
    """
    survey = Survey(trees)
    level, evidence = _best(survey, where)
    if level is None:
        if numbered := survey.numbered():
            return EpisodeGroups(numbered, "the names of the groups")
        return EpisodeGroups("/", "no groups that look the same, so each file is one episode")
    pattern, looks = level.pattern, level.groups[0].looks
    ignore = sorted({f"/{path}" for tree in trees.values() for path in _strangers(tree, level, pattern)})
    if len(ignore) > MAX_IGNORED:
        raise UsageError(
            f"{where}: {len(ignore)} things beside the episodes, such as {ignore[0]}, have names that '{pattern}' "
            "matches; declare source.episodes"
        )
    guess = EpisodeGroups(pattern, WHY[evidence], looks, tuple(ignore))
    for file, tree in trees.items():
        check_siblings(tree, guess, where=f"{where}: {file}" if file else where)
    return guess


def check_siblings(tree: Tree, guess: EpisodeGroups, *, where: str) -> None:
    """Raise UsageError if a group looks like the episodes and is not matched by the guessed pattern."""
    if not guess.looks:
        return
    groups = [path for path in siblings(tree, guess.pattern) if tree.head(path) is None]
    for _ in range(MAX_DEPTH):
        for path in groups:
            if (heads := arrays_below(tree, path)) is not None and looks_of(heads) == guess.looks:
                raise UsageError(
                    f"{where}: {path} looks like the episodes, but the pattern '{guess.pattern}', which was guessed "
                    "from the other groups, does not match it; declare source.episodes"
                )
        groups = [below(path, name) for path in groups for name in tree.names(path)[:MAX_NAMES]]
        groups = [path for path in groups if tree.head(path) is None][:MAX_NAMES]


def _best(survey: Survey, where: str) -> tuple[Level | None, int]:
    """Return the level with the strongest evidence; raise UsageError if another one is as good."""
    judged = survey.levels
    if any(level.groups[0].is_wide for _, level in judged):
        judged = [(evidence, level) for evidence, level in judged if level.groups[0].is_wide]
    if not judged:
        return None, NONE
    top = max(evidence for evidence, _ in judged)
    best = [level for evidence, level in judged if evidence == top]
    best = [level for level in best if not any(survey.is_shell(level, inner) for inner in best if inner.has_lengths)]
    best = [level for level in best if not any(other.is_above(level) for other in best if other is not level)]
    largest = max(best, key=lambda level: level.size)
    rivals = [
        level
        for evidence, level in judged
        if level is not largest and evidence >= NUMBERED and _is_rival(level, largest, survey)
    ]
    choices = [(level.pattern, f"such as {level.groups[0].path}") for level in (largest, *rivals)]
    if top == WORDS:
        choices.append(("/", "each file is one episode"))
    if len(choices) > 1:
        listed = " or ".join(f"source.episodes = '{pattern}' ({what})" for pattern, what in choices)
        raise UsageError(f"{where}: the episodes may be in more than one place; declare {listed}")
    return largest, top


def _is_rival(level: Level, chosen: Level, survey: Survey) -> bool:
    """Whether a level may be the episodes just as well as the chosen one."""
    if chosen.is_above(level):
        return survey.is_shell(chosen, level) and len(level.groups) > len(chosen.groups)
    return not level.is_above(chosen) and level.size >= RIVAL * chosen.size


def _strangers(tree: Tree, level: Level, pattern: str) -> Iterator[str]:
    """Yield what the pattern matches besides episodes: another name and less than half of the episodes' arrays."""
    known = {group.path for group in level.groups}
    names = {group.name for group in level.groups}
    inner = {path for path, *_ in level.groups[0].looks}
    for path in matches(tree, pattern)[:MAX_MATCHES]:
        if path in known or has_style(path.rpartition("/")[2], names):
            continue
        heads = {} if tree.head(path) else arrays_below(tree, path)
        if heads is not None and len(inner & heads.keys()) < SIMILAR * len(inner):
            yield path


def listed(names: Collection[str]) -> str:
    """Return names in quotes, separated by commas."""
    return ", ".join(f"'{name}'" for name in names)
