"""Guess what the episodes of a folder are called, from the names of the files in it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from itertools import takewhile

from pipelines.readers.alike import inner_episodes, is_data, largest_group, template, visible
from pipelines.readers.endings import EPISODE_NAMES, PICKLES
from pipelines.readers.episode_rows import is_row_key
from pipelines.readers.files.step_files import STEP_RANGES, array_shapes, step_like
from pipelines.readers.find import EPISODE_FOLDER
from pipelines.readers.folder import SourceFolder, pickle_error
from schemas.declarations.formats import FolderSource
from schemas.errors import UsageError

MAX_IGNORED = 20  # folders that a guess leaves out by name


@dataclass(frozen=True, slots=True)
class FolderGuess:
    """A guessed table `source`, and for each of its keys a phrase with the guess and its evidence."""

    source: FolderSource
    evidence: dict[str, str]


def guess(folder: SourceFolder) -> FolderGuess:
    """Guess the episodes: folders with the same files, or files of one type.

    Raises UsageError if there are none, if no pattern matches exactly the episodes, or if each file seems to hold one
    step.
    """
    names = visible(folder)
    if STEP_RANGES in names:
        return _ranges(folder, names)
    folders = _episode_folders(folder, [name for name in names if folder.is_folder(name)])
    files = _episode_files(names)
    alike = max(Counter(map(template, files)).values(), default=0)
    if folders and len(folders) >= alike:
        return _folders(folder, folders, names)
    if files:
        _refuse_steps(folder, "", files)
        _refuse_stacked(folder, files)
        if _are_columns(folder, files):
            return _found({"episodes": "."}, f"{len(files)} arrays beside each other")
        ending = files[0][files[0].rfind(".") :]
        return _found({"episodes": f"*{ending}"}, f"the names of {len(files)} files")
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        raise pickle_error(folder.path(pickles[0]))
    raise UsageError(f"{folder.uri}: no episodes here; name their folders or files in source.episodes")


def _found(keys: dict[str, str], why: str, ignore: Sequence[str] = ()) -> FolderGuess:
    source = FolderSource.model_validate({"format": "folder", "ignore": tuple(ignore), **keys})
    evidence = {key: f"{value!r}, {why}" for key, value in keys.items()}
    return FolderGuess(source, evidence | ({"ignore": f"{[*ignore]}, folders with other files"} if ignore else {}))


def _ranges(folder: SourceFolder, names: Sequence[str]) -> FolderGuess:
    steps = [name for name in names if name.endswith(".npz")]
    pattern = _pattern(folder, steps, [name for name in names if name not in steps]) or "*.npz"
    keys = {"episodes": ".", "step_files": pattern, "step_ranges": STEP_RANGES}
    return _found(keys, f"because there is {STEP_RANGES}")


def _episode_folders(folder: SourceFolder, folders: Sequence[str]) -> list[str]:
    """List the folders that hold the same files, and those that are called like one of them.

    If no folder holds an episode, these are the folders that hold several, or else those with a numbered name.
    """
    alike: Sequence[str] = largest_group(folder, folders) or [name for name in folders if inner_episodes(folder, name)]
    if len(alike) == 1 and not EPISODE_FOLDER.fullmatch(alike[0]):
        alike = ()
    if not alike:
        stems = Counter(map(_stem, filter(EPISODE_FOLDER.fullmatch, folders)))
        most = max(stems, key=lambda stem: (stems[stem], stem), default=None)
        return [name for name in folders if EPISODE_FOLDER.fullmatch(name) and _stem(name) == most]
    shapes = {template(name) for name in alike if template(name) != name}
    return [name for name in folders if name in alike or template(name) in shapes]


def _stem(name: str) -> str:
    return re.sub(r"[0-9]+$", "", name)


def _episode_files(names: Sequence[str]) -> list[str]:
    """List the files of the type that most files have."""
    by_ending = [[name for name in names if name.endswith(ending)] for ending in EPISODE_NAMES]
    return max(by_ending, key=len)


def _are_columns(folder: SourceFolder, files: Sequence[str]) -> bool:
    """Whether files are the arrays of one episode or table: `npy` files with words for names and as many rows."""
    if not _are_words(files):
        return False
    if any(is_row_key(name.removesuffix(".npy")) for name in files):
        return True  # such as the ends of episodes, which has other rows
    rows = [shape[:1] for name in files for _, shape in array_shapes(folder, name).values()]
    return len(rows) == len(files) and len({*rows}) == 1 and rows[0] != ()


def _are_words(files: Sequence[str]) -> bool:
    """Whether there are several `npy` files, with words for names."""
    return len(files) > 1 and all(name.endswith(".npy") and template(name) == name for name in files)


def _refuse_stacked(folder: SourceFolder, files: Sequence[str]) -> None:
    """Raise UsageError if arrays seem to hold many episodes: [episode, time, ...], padded to one length."""
    if not _are_words(files):
        return
    shapes = [shape for name in files for _, shape in array_shapes(folder, name).values()]
    heads = {tuple(sorted(shape[:2])) for shape in shapes}  # the mask of the padding may be transposed
    sizes = {len(shape) for shape in shapes}
    if len(heads) == 1 and sizes <= {2, 3} and 3 in sizes and len({*shapes}) > 1:
        raise UsageError(
            f"{folder.uri}: the arrays here, such as {files[0]}, share their first two axes, as if they were [episode, "
            "time, ...]: write each episode without its padding to a folder of its own, or, if the rows are the steps "
            "of one episode, declare source.episodes = '.'"
        )


def _folders(folder: SourceFolder, episodes: Sequence[str], names: Sequence[str]) -> FolderGuess:
    """Return the pattern of folders, or of the episodes inside them if each holds several."""
    others = [name for name in names if name not in episodes]
    outer = _pattern(folder, episodes, others)
    inner = [f"{name}/{each}" for name in episodes for each in inner_episodes(folder, name)]
    if inner:
        first = inner[0].partition("/")[0]
        _refuse_steps(folder, first, inner_episodes(folder, first))
        outside = [f"{name}/{each}" for name in episodes for each in visible(folder, name)]
        below = _pattern(folder, inner, [path for path in outside if path not in inner]) or "*"
        pattern = f"{(outer or '*').removesuffix('/')}/{below}"
        return _found({"episodes": pattern}, f"the names of {len(inner)} episodes in {len(episodes)} folders")
    _refuse_steps(folder, episodes[0], visible(folder, episodes[0]))
    if outer:
        return _found({"episodes": outer}, f"the names of {len(episodes)} folders with the same files")
    ignored = [name for name in others if folder.is_folder(name)]
    if len(ignored) > MAX_IGNORED:
        shown = f"such as {episodes[0]}, and {len(ignored)} others, such as {ignored[0]}"
        raise UsageError(f"{folder.uri}: {len(episodes)} folders hold episodes, {shown}; declare source.episodes")
    return _found({"episodes": "*/"}, f"{len(episodes)} folders with the same files", ignored)


def _pattern(folder: SourceFolder, chosen: Sequence[str], others: Sequence[str]) -> str | None:
    """Return a pattern that matches the last names of all chosen paths, and of no other path; None if there is none.

    If it also matches other files, but no other folder, it ends with `/`.
    """
    last_names = [path.rpartition("/")[2] for path in chosen]
    for pattern in _candidates(last_names):
        if not all(fnmatchcase(name, pattern) for name in last_names):
            continue
        clashes = [path for path in others if fnmatchcase(path.rpartition("/")[2], pattern)]
        if not clashes:
            return pattern
        if not any(map(folder.is_folder, clashes)) and all(map(folder.is_folder, chosen)):
            return f"{pattern}/"
    return None


def _candidates(names: Sequence[str]) -> Iterator[str]:
    """Yield patterns for some names, the plainest first."""
    endings = {name[name.rfind(".") :] for name in names if is_data(name)}
    ending = escape(min(endings)) if len(endings) == 1 else ""
    if prefix := _common_start(names):
        yield f"{escape(prefix)}*{ending}"
    if all(name[0].isdigit() for name in names):
        yield f"[0-9]*{ending}"
    yield f"*{ending}"
    if suffix := re.sub(r"^.*[0-9]", "", _common([name[::-1] for name in names])[::-1]):
        yield f"*{escape(suffix)}"
    yield f"*[0-9]{ending}"
    if len(shapes := {template(name) for name in names}) == 1:
        yield escape(min(shapes)).replace("#", "[0-9]*")


def _common(names: Sequence[str]) -> str:
    return "".join(each[0] for each in takewhile(lambda each: len({*each}) == 1, zip(*names, strict=False)))


def _common_start(names: Sequence[str]) -> str:
    """Return the common start of names, up to a number or to the end of a word."""
    common = _common(names)
    number = re.search(r"[0-9]", common)
    if number:
        return common[: number.start()]
    is_whole = all(name == common or not name[len(common)].isalpha() for name in names)
    return common if is_whole else re.sub(r"[^_ .-]*$", "", common)


def _refuse_steps(folder: SourceFolder, below: str, files: Sequence[str]) -> None:
    """Raise UsageError if each of some files seems to hold one step."""
    if (pattern := step_like(folder, below, files)) is None:
        return
    where, episodes = (folder.path(below), "the pattern of these folders") if below else (folder.uri, "'.'")
    raise UsageError(
        f"{where}: each file here, such as {files[0]}, seems to hold one step and not an episode; if so, declare "
        f"source.episodes = {episodes} and source.step_files = '{pattern}' (and source.step_ranges if a folder holds "
        "several episodes), otherwise declare source.episodes alone"
    )
