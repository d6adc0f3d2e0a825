"""Find the arrays of an episode's files that have no row per step, and the fields without values."""

from collections.abc import Mapping, Sequence

from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.files.tree import episode_fields
from pipelines.readers.folder import SourceFolder
from pipelines.readers.lengths import per_episode_paths
from pipelines.readers.names import covers
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError

MAX_EPISODES = 5  # episodes that a guess rests on


def per_episode_arrays(folder: SourceFolder, names: Sequence[str], source: FolderSource) -> tuple[str, ...]:
    """Guess the arrays that belong to a whole episode, from the headers of the first episodes that can be read."""
    episodes: list[dict[str, LazyField]] = []
    for name in names[:MAX_EPISODES]:
        try:
            episodes.append(episode_fields(folder, name, source).fields)
        except (SourceError, OSError, ValueError):  # reported when the episode is read
            continue
    steps = [{path: field for path, field in fields.items() if field.leaf.field.per_step} for fields in episodes]
    shapes = [{path: _shape(field) for path, field in fields.items() if field.count} for fields in steps]
    texts = {path for fields in steps for path, field in fields.items() if field.leaf.form == "texts"}
    paths = per_episode_paths(shapes, texts)
    if not paths:
        return ()
    try:
        fields = episode_fields(folder, names[0], source.model_copy(update={"per_episode": paths})).fields
    except SourceError:
        return ()
    still = [path for path, field in fields.items() if field.leaf.field.per_step]  # tables, images and videos
    return tuple(path for path in paths if not any(covers([path], other) for other in still))


def _shape(field: LazyField) -> tuple[int, ...]:
    return (field.count, *(size or 0 for size in field.leaf.field.shape if field.leaf.form == "numbers"))


def without_values(fields: Mapping[str, LazyField]) -> dict[str, tuple[int | None, ...]]:
    """Return the fields that hold no values, with their shapes: [T, 0], or no rows although others have rows."""
    has_rows = any(field.count for field in fields.values() if field.leaf.field.per_step)
    empty: dict[str, tuple[int | None, ...]] = {}
    for path, field in fields.items():
        described = field.leaf.field
        if 0 in described.shape or (described.per_step and has_rows and not field.count):
            empty[path] = (field.count, *described.shape) if described.per_step else described.shape
    return empty
