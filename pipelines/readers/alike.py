"""Find out which folders hold an episode, and which hold the same files, whatever the folders are called."""

import re
from collections import Counter
from collections.abc import Sequence

from pipelines.readers.endings import IMAGES, PICKLES, READ, TEXTS
from pipelines.readers.folder import SourceFolder

DEPTH = 3  # levels of folders to compare
SAMPLE = 50  # folders to compare until two are alike
DIGITS = re.compile(r"[0-9]+")
EPISODE = re.compile(  # a date, a time, or a numbered word for an episode
    r"((eps?|episode|demo|demonstration|traj|trajectory|run|rollout|trial|take|rec|recording|session|seq|sequence)"
    r"[ _.-]*[0-9]|[0-9]+[-_.: T]?[0-9])[0-9T _.:-]*",
    re.IGNORECASE,
)
SEVERAL = (".npz", ".csv", ".jsonl")  # two numbered files of one of these types in a folder are two episodes
IMAGE_KIND = "images"


def visible(folder: SourceFolder, below: str = "") -> list[str]:
    """List the names in a folder that do not start with a dot."""
    return [name for name in folder.names(below) if name[0] != "."]


def is_data(name: str) -> bool:
    """Whether a file name has an ending that is known."""
    return name.lower().endswith((*READ, *PICKLES))


def template(name: str) -> str:
    """Replace the numbers in a name.

    >>> template("2024-05-01_run7")
    '#-#-#_run#'
    """
    return DIGITS.sub("#", name)


def kinds(folder: SourceFolder, name: str, depth: int = DEPTH) -> frozenset[str]:
    """Return the names of the data files in the folder of an episode, without their numbers.

    Images are only counted as such, and texts only if there is nothing else, because an episode may lack them. Empty if
    the folder holds no data besides images, or several episodes.
    """
    if inner_episodes(folder, name):
        return frozenset()
    entries = _kinds(folder, name, depth)
    data = frozenset(kind for kind in entries if not kind.endswith(".txt"))
    core = frozenset(kind for kind in data if not kind.endswith(TEXTS)) or data
    return core if any(kind.rpartition("/")[2] != IMAGE_KIND for kind in data) else frozenset()


def _kinds(folder: SourceFolder, name: str, depth: int) -> frozenset[str]:
    own = name.rpartition("/")[2]
    entries = set[str]()
    for each in visible(folder, name):
        if is_data(each):
            shown = each.replace(own, "*") if len(own) > 2 else each
            entries.add(IMAGE_KIND if each.lower().endswith(IMAGES) else template(shown))
        elif depth > 1 and folder.is_folder(f"{name}/{each}"):
            entries |= {f"{template(each)}/{kind}" for kind in _kinds(folder, f"{name}/{each}", depth - 1)}
    return frozenset(entries)


def inner_episodes(folder: SourceFolder, name: str) -> tuple[str, ...]:
    """List the episodes in a folder that is not an episode itself; empty if it may be one.

    They are folders, or files of one type, with a date or a number each, and the folder holds no other data.
    """
    names = visible(folder, name)
    files = [each for each in names if is_data(each) and not each.lower().endswith(TEXTS)]
    folders = [each for each in names if not is_data(each) and _kinds(folder, f"{name}/{each}", 2) - {IMAGE_KIND}]
    if folders and not files and all(each.isdigit() or EPISODE.fullmatch(each) for each in folders):
        return tuple(folders)
    endings = {each[each.rfind(".") :].lower() for each in files}
    stems = [each.rpartition(".")[0] for each in files]
    is_numbered = all(stem.isdigit() or EPISODE.fullmatch(stem) for stem in stems)
    is_several = len(files) > 1 and len(endings) == 1 and endings <= {*SEVERAL} and is_numbered and not folders
    return tuple(files) if is_several else ()


def has_alike_folders(folder: SourceFolder, names: Sequence[str]) -> bool:
    """Whether at least two of some folders each hold an episode with the same files."""
    seen = set[frozenset[str]]()
    for name in names[:SAMPLE]:
        entries = kinds(folder, name)
        if entries and entries in seen:
            return True
        seen.add(entries)
    return False


def largest_group(folder: SourceFolder, names: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that hold the same files as most others; empty if none holds an episode."""
    by_name = {name: kinds(folder, name) for name in names}
    counts = Counter(entries for entries in by_name.values() if entries)
    if not counts:
        return ()
    most = max(counts, key=lambda entries: (counts[entries], sorted(entries)))
    return tuple(name for name, entries in by_name.items() if entries == most)
