"""One episode as it lies on the disk: which files it has, and which field each of them is."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipelines.readers.files import tables
from pipelines.readers.files.arrays import npy_piece, npz_pieces
from pipelines.readers.files.media import images_piece, read_file, texts_piece, video_piece
from pipelines.readers.files.piece import Piece
from pipelines.readers.find import PICKLES
from pipelines.readers.folder import SourceFolder, pickle_refused
from pipelines.readers.names import covers, natural
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
TABLES = (".csv", ".jsonl")
READ = (".npz", ".npy", *TABLES, ".json", ".txt", *IMAGES, *VIDEOS)
MAX_DEPTH, MAX_NODES = 4, 10_000  # of folders in an episode, and of files that are no images


def files_of(folder: SourceFolder, episode: str) -> list[str]:
    """List the files of an episode: first those with numbers, then texts, images and videos."""
    if _is_file(episode):
        return [episode]
    found = [f"{below}/{name}" for below, names in _walk(folder, episode) for name in names]
    later = ((".txt", ".json"), (*IMAGES, *VIDEOS))
    return sorted(found, key=lambda name: ([name.lower().endswith(ends) for ends in later[::-1]], natural(name)))


def _is_file(name: str) -> bool:
    return name.lower().endswith((*READ, *PICKLES))


def _walk(folder: SourceFolder, episode: str) -> Iterator[tuple[str, list[str]]]:
    """Give each folder of an episode with the files in it; hidden ones are left out."""
    stack, visited = [episode], 0
    while stack:
        below = stack.pop()
        names = [name for name in folder.names(below) if name[0] != "."]
        files = [name for name in names if _is_file(name) or not folder.names(f"{below}/{name}")]
        folders = [name for name in names if name not in {*files}]
        visited += len(folders) + sum(not name.lower().endswith(IMAGES) for name in files)
        if visited > MAX_NODES or (folders and below.count("/") - episode.count("/") >= MAX_DEPTH):
            raise SourceError(f"more than {MAX_NODES} files, or folders too deep", reason="too_large")
        yield below, files
        stack += [f"{below}/{name}" for name in sorted(folders, reverse=True)]


def pieces_of(folder: SourceFolder, episode: str, source: FolderSource) -> dict[str, Piece]:
    """Describe every field of an episode, by path."""
    if _is_file(episode):
        return _checked(_file(folder, episode, source, path=""), source)
    pieces: dict[str, Piece] = {}
    for below, names in _walk(folder, episode):
        inside = below.removeprefix(episode).strip("/").replace("/", ".")
        images = [name for name in names if name.lower().endswith(IMAGES)]
        path = inside or "images"
        if images and not covers(source.ignore, path):
            numbered = not covers(source.unnumbered, path)
            _add(pieces, {path: images_piece(folder, below, path, names=images, is_numbered=numbered)})
        for name in sorted({*names} - {*images}, key=natural):
            path = ".".join(filter(None, [inside, name.rpartition(".")[0] or name]))
            if not covers(source.ignore, path) and not covers(source.ignore, f"{inside}.{name}".lstrip(".")):
                _add(pieces, _file(folder, f"{below}/{name}", source, path=path))
    return _checked(pieces, source)


def _checked(pieces: Mapping[str, Piece], source: FolderSource) -> dict[str, Piece]:
    return {path: piece for path, piece in sorted(pieces.items()) if not covers(source.ignore, path)}


def _add(pieces: dict[str, Piece], more: Mapping[str, Piece]) -> None:
    for path, piece in more.items():
        if path in pieces:
            raise SourceError(f"two files give the field {path}", reason="unsupported_field")
        pieces[path] = piece


def _file(folder: SourceFolder, name: str, source: FolderSource, *, path: str) -> dict[str, Piece]:
    """Describe the fields of one file; an error names it."""
    kind = name.lower()
    prefix = f"{path}." if path else ""
    arrays = {"per_episode": source.per_episode, "ignore": source.ignore, "images": source.images or "png"}
    with reading(folder.path(name)):
        if kind.endswith(PICKLES):
            raise pickle_refused(folder.path(name))
        if kind.endswith(".npz"):
            return npz_pieces(folder, name, prefix, **arrays)
        if kind.endswith(".npy"):
            path = path or "values"
            return {path: npy_piece(folder, name, path, **arrays)}
        if kind.endswith(TABLES):
            return tables.table(read_file(folder, name, tables.TABLE_LIMIT), kind, prefix=prefix, ignore=source.ignore)
        if kind.endswith(".json"):
            return tables.values(read_file(folder, name, tables.TABLE_LIMIT), prefix=prefix, ignore=source.ignore)
        if kind.endswith(".txt"):
            return {path: texts_piece(folder, name, path, ignore_lines=source.ignore_lines)}
        if kind.endswith(VIDEOS):
            return {path: video_piece(folder, name, path, images=source.images or "jpeg 95")}
        leaf = name.rpartition("/")[2]
        message = f"a file of no kind that is read ({', '.join(READ)}); leave it out with source.ignore = ['{leaf}']"
        raise SourceError(message, reason="unsupported_field")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Make a SourceError that names the file of whatever is raised for a damaged one."""
    try:
        yield
    except SourceError as error:
        raise error.at(error.file or path) from error
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        why = str(error).replace(path, "") or type(error).__name__
        raise SourceError(f"cannot be read ({why})", file=path) from error
