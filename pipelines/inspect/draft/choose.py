"""Choose the fields of the drafted state and action by their names, by what they belong to, and by their contents."""

from collections.abc import Mapping, Sequence

from pipelines.inspect.draft.clock import described
from pipelines.inspect.draft.layout import dimension_names, segments
from pipelines.inspect.draft.owners import Owner, owner, stem
from pipelines.inspect.draft.roles import GRIPPER, JOINT, POSE, POSITION, ROTATION, content, role, words
from pipelines.inspect.draft.sample import Sample

WHOLE = {"state", "states", "proprio", "action", "actions"}  # last word in the name of a field with the whole vector
MAX_UNNAMED = 24  # width; a wider vector without names is a simulator's state
RANKS: Mapping[Owner, int] = {"tool": 0, "robot": 1, "base": 2}
ROBOT_KEYS = ("robot_type", "robot", "robots", "robot_name")  # keys of a description that name the robot


def choose_fields(sample: Sample, which: str) -> tuple[list[str], list[str]]:
    """Choose the fields of the action or the state; returns them, and the other fields with that role.

    A field whose name means the whole vector, such as `actions`, is chosen first. For an action it is the only one; for
    a state, other fields are added if they have contents that it lacks, the likeliest first. A field of unknown meaning
    is chosen only for an action, and only if there is no other field. A field of something else than the robot is never
    chosen, and one that may be of something else only for a state, if there is no other field. Fields that are not
    chosen are kept as raw numbers.
    """
    fields = [path for path in sorted(set().union(*sample.episodes)) if role(sample.fields[path]) == which]
    owners = {path: owner(path, robot_words(sample)) for path in fields}
    vectors = [path for path in fields if owners[path] != "thing" and (which == "action" or _is_vector(sample, path))]
    wholes = [path for path in vectors if words(path)[-1] in WHOLE]
    if which == "action" and wholes:
        chosen = [min(wholes, key=lambda path: (path.count("."), path))]
    elif which == "action":
        chosen = _complementary(sample, vectors) or vectors[:1]
    else:
        ranked = _ranked([path for path in vectors if owners[path] != "unknown"], owners)
        chosen = _complementary(sample, ranked, owners)
        chosen = chosen or _complementary(sample, [path for path in vectors if owners[path] == "unknown"])
    return chosen, [path for path in fields if path not in chosen]


def robot_words(sample: Sample) -> frozenset[str]:
    """Return the words of the robot's name in the description of the recording; empty if it has none."""
    names = (value for _, value in described(sample, ROBOT_KEYS))
    texts = [item for value in names for item in (value if isinstance(value, list) else [value])]
    return frozenset(word for text in texts if isinstance(text, str) for word in words(text) if len(word) > 1)


def _ranked(paths: Sequence[str], owners: Mapping[str, Owner]) -> list[str]:
    """Order the fields of a state: whole vectors, then the tool's poses, then other fields of the robot, then its base.

    Of the same rank, a position and a rotation that are named alike come first.
    """

    def rank(path: str) -> tuple[bool, int, bool, str]:
        place: Owner = owners[path] if _pose_word(path) or owners[path] == "base" else "robot"
        pairs = (other for other in paths if stem(other) == stem(path))
        is_alone = not any({_pose_word(path), _pose_word(other)} == {"position", "rotation"} for other in pairs)
        return words(path)[-1] not in WHOLE, RANKS[place], is_alone, path

    return sorted(paths, key=rank)


def _pose_word(path: str) -> str:
    """Return whether a name means a position, a rotation, or a pose; empty if it means none of them."""
    name = {*words(path)}
    if name & ROTATION and not name & POSITION:
        return "rotation"
    return "position" if name & POSITION and not name & JOINT else "pose" if name & POSE and not name & GRIPPER else ""


def _complementary(sample: Sample, paths: Sequence[str], owners: Mapping[str, Owner] | None = None) -> list[str]:
    """Choose the fields whose contents no earlier field has; a pose is not put together from the tool and the base."""
    taken: dict[tuple[str, str], str] = {}  # content and arm -> field
    chosen = []
    for path in paths:
        contents = {(segment.guess, segment.side) for segment in segments(sample, path)}
        known = {(guess, side) for guess, side in contents if guess != "unknown"}
        others = {field for (guess, _), field in taken.items() if guess in {"position", "rotation"}}
        is_mixed = any(guess in {"position", "rotation"} for guess, _ in known) and any(
            (owners[field] == "base") != (owners[path] == "base") for field in others if owners
        )
        if not known & taken.keys() and not is_mixed and (known or _is_named(sample, path)):
            chosen.append(path)
            taken |= dict.fromkeys(contents, path)
    return chosen


def _is_named(sample: Sample, path: str) -> bool:
    return bool(dimension_names(sample.fields[path], sample.columns(path)[0].shape[1]))


def _is_vector(sample: Sample, path: str) -> bool:
    """Whether a field may be a state: it is not too wide, or its name or the names of its numbers are meaningful."""
    width = sample.columns(path)[0].shape[1]
    return width <= MAX_UNNAMED or content(path, width) != "unknown" or _is_named(sample, path)
