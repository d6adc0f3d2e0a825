"""Guess where the episodes of Zarr stores without a declaration are: in a replay buffer or in groups."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pipelines.readers.folder import SourceFolder
from pipelines.readers.groups import EpisodeGroups, guess_groups
from pipelines.readers.lengths import per_episode_paths
from pipelines.readers.patterns import matches
from pipelines.readers.survey import arrays_below
from pipelines.readers.zarr.grouped import ZarrTree
from pipelines.readers.zarr.store import DAMAGE, open_store
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError

MAX_STORES, MAX_EPISODES = 5, 5  # stores, and episodes of each of them, that a guess rests on


@dataclass(frozen=True, slots=True)
class ZarrGuess:
    """The guessed table `source`, and why each of its keys was guessed."""

    source: ZarrSource
    groups: EpisodeGroups
    why: Mapping[str, str]


def guess_source(folder: SourceFolder, names: Sequence[str], *, where: str) -> ZarrGuess | None:
    """Guess the layout from the first stores that can be opened; None for a replay buffer with the default layout.

    Raises UsageError, which starts with `where`, if the episodes may be in several places.
    """
    with ExitStack() as stack:
        trees: dict[str, ZarrTree] = {}
        for name in names[:MAX_STORES]:
            try:
                trees[name] = ZarrTree(stack.enter_context(open_store(folder, name)))
            except (SourceError, *DAMAGE):  # reported when the store is read
                continue
        ends = ZarrSource(format="zarr").ends_at or ""
        if not trees or any(ends in tree for tree in trees.values()):
            return None
        groups = guess_groups(trees, where=where)
        if groups.pattern == "/":
            return None
        sample = [
            {path.replace("/", "."): head for path, head in heads.items() if head.shape and 0 not in head.shape}
            for tree in trees.values()
            for group in matches(tree, groups.pattern)[:MAX_EPISODES]
            if f"/{group}" not in groups.ignore and (heads := arrays_below(tree, group))
        ]
        texts = {path for heads in sample for path, head in heads.items() if head.kind == "S"}
        whole = per_episode_paths([{p: head.shape for p, head in heads.items()} for heads in sample], texts)
        source = ZarrSource(format="zarr", episodes=groups.pattern, ignore=groups.ignore, per_episode=whole)
        return ZarrGuess(source, groups, groups.reasons(whole, episodes=len(sample)))
