"""Map the files of one episode to its fields."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipelines.readers.files import tables
from pipelines.readers.files.arrays import npy_field, npz_fields
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.files.media import image_field, read_file, text_field, video_field
from pipelines.readers.find import PICKLES
from pipelines.readers.folder import SourceFolder, pickle_error
from pipelines.readers.names import covers, natural_key
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
TABLES = (".csv", ".jsonl")
READ = (".npz", ".npy", *TABLES, ".json", ".txt", *IMAGES, *VIDEOS)
MAX_DEPTH, MAX_NODES = 4, 10_000  # levels of folders in an episode; number of its folders and non-image files


def files_of(folder: SourceFolder, episode: str) -> list[str]:
    """List the files of an episode: tables and arrays first, then texts, images and videos."""
    if _is_file(episode):
        return [episode]
    paths = [f"{below}/{name}" for below, names in _walk(folder, episode) for name in names]
    last_kinds = ((".txt", ".json"), (*IMAGES, *VIDEOS))
    return sorted(
        paths, key=lambda name: ([name.lower().endswith(endings) for endings in last_kinds[::-1]], natural_key(name))
    )


def _is_file(name: str) -> bool:
    return name.lower().endswith((*READ, *PICKLES))


def _walk(folder: SourceFolder, episode: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder of an episode with its files; hidden folders and files are left out.

    Raises SourceError if there are too many folders and files, or if they are nested too deeply.
    """
    stack, visited = [episode], 0
    while stack:
        below = stack.pop()
        names = [name for name in folder.names(below) if name[0] != "."]
        files = [name for name in names if _is_file(name) or not folder.names(f"{below}/{name}")]
        folders = [name for name in names if name not in {*files}]
        visited += len(folders) + sum(not name.lower().endswith(IMAGES) for name in files)
        if visited > MAX_NODES or (folders and below.count("/") - episode.count("/") >= MAX_DEPTH):
            raise SourceError(f"more than {MAX_NODES} files, or folders nested too deeply", reason="too_large")
        yield below, files
        stack += [f"{below}/{name}" for name in sorted(folders, reverse=True)]


def episode_fields(folder: SourceFolder, episode: str, source: FolderSource) -> dict[str, LazyField]:
    """Describe every field of an episode, by path."""
    if _is_file(episode):
        return _without_ignored(_file_fields(folder, episode, source, path=""), source)
    fields: dict[str, LazyField] = {}
    for below, names in _walk(folder, episode):
        inside = below.removeprefix(episode).strip("/").replace("/", ".")
        images = [name for name in names if name.lower().endswith(IMAGES)]
        path = inside or "images"
        if images and not covers(source.ignore, path):
            numbered = not covers(source.unnumbered, path)
            _add(fields, {path: image_field(folder, below, path, names=images, is_numbered=numbered)})
        for name in sorted({*names} - {*images}, key=natural_key):
            path = ".".join(filter(None, [inside, name.rpartition(".")[0] or name]))
            if not covers(source.ignore, path) and not covers(source.ignore, f"{inside}.{name}".lstrip(".")):
                _add(fields, _file_fields(folder, f"{below}/{name}", source, path=path))
    return _without_ignored(fields, source)


def _without_ignored(fields: Mapping[str, LazyField], source: FolderSource) -> dict[str, LazyField]:
    return {path: field for path, field in sorted(fields.items()) if not covers(source.ignore, path)}


def _add(fields: dict[str, LazyField], more: Mapping[str, LazyField]) -> None:
    for path, field in more.items():
        if path in fields:
            raise SourceError(f"two files define the field {path}", reason="unsupported_field")
        fields[path] = field


def _file_fields(folder: SourceFolder, name: str, source: FolderSource, *, path: str) -> dict[str, LazyField]:
    """Describe the fields of one file, by path; raise SourceError, which names the file, if it cannot be read."""
    kind = name.lower()
    prefix = f"{path}." if path else ""
    options = {"per_episode": source.per_episode, "ignore": source.ignore, "images": source.images or "png"}
    with reading(folder.path(name)):
        if kind.endswith(PICKLES):
            raise pickle_error(folder.path(name))
        if kind.endswith(".npz"):
            return npz_fields(folder, name, prefix, **options)
        if kind.endswith(".npy"):
            path = path or "values"
            return {path: npy_field(folder, name, path, **options)}
        if kind.endswith(TABLES):
            data = read_file(folder, name, tables.TABLE_LIMIT)
            return tables.table_fields(data, kind, prefix=prefix, ignore=source.ignore, header=source.header)
        if kind.endswith(".json"):
            return tables.json_fields(read_file(folder, name, tables.TABLE_LIMIT), prefix=prefix, ignore=source.ignore)
        if kind.endswith(".txt"):
            return {path: text_field(folder, name, path, ignore_lines=source.ignore_lines)}
        if kind.endswith(VIDEOS):
            return {path: video_field(folder, name, path, images=source.images or "jpeg 95")}
        file = name.rpartition("/")[2]
        message = (
            f"this type of file is not supported ({', '.join(READ)}); leave it out with source.ignore = ['{file}']"
        )
        raise SourceError(message, reason="unsupported_field")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any error that a damaged file causes into a SourceError that names the file."""
    try:
        yield
    except SourceError as error:
        raise error.at(error.file or path) from error
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        why = str(error).replace(path, "") or type(error).__name__
        raise SourceError(f"cannot be read ({why})", file=path) from error
