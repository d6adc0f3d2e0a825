"""Map the files of one episode to its fields."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.readers.endings import IMAGES, PACKED, PICKLES, READ, TABLES, VIDEOS
from pipelines.readers.files import tables
from pipelines.readers.files.arrays import npy_field, npz_fields
from pipelines.readers.files.damage import reading
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.files.media import image_field, images_field, read_file, text_field, video_field
from pipelines.readers.files.step_files import folder_steps, step_fields
from pipelines.readers.folder import SAFE_PATH, SourceFolder, pickle_error
from pipelines.readers.names import covers, natural_key
from pipelines.readers.reader import LeftOut
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError

MAX_DEPTH, MAX_NODES = 4, 10_000  # levels of folders in an episode; number of its folders and non-image files


@dataclass(frozen=True, slots=True)
class EpisodeFields:
    """The fields of an episode by path, and what is not read of it."""

    fields: dict[str, LazyField] = field(default_factory=dict)
    empty_columns: list[str] = field(default_factory=list)  # paths in JSON that have no value in any step
    named_images: set[str] = field(default_factory=set)  # files that the steps of a JSON file name
    unnamed_images: list[str] = field(default_factory=list)  # images beside them that no step names
    empty_folders: list[str] = field(default_factory=list)

    def add(self, fields: Mapping[str, LazyField]) -> None:
        """Add fields; raise SourceError if one of them exists already."""
        if double := sorted({*fields} & {*self.fields}):
            raise SourceError(f"two files define the field {double[0]}", reason="unsupported_field")
        self.fields.update(fields)

    def left_out(self) -> tuple[LeftOut, ...]:
        """Count what is not read."""
        kinds = {
            "columns without values": self.empty_columns,
            "images of the first episode that no field names": self.unnamed_images,
            "empty folders of the first episode": self.empty_folders,
        }
        return tuple(LeftOut(what, len(paths), paths[0]) for what, paths in kinds.items() if paths)


@dataclass(frozen=True, slots=True)
class EpisodeFile:
    """A file of an episode."""

    folder: SourceFolder
    name: str  # relative to the source
    episode: str  # the folder of the episode; "" for the folder of the source


def files_of(folder: SourceFolder, episode: str) -> list[str]:
    """List the files of an episode: tables and arrays first, then texts, images and videos."""
    if _is_file(episode):
        return [episode]
    paths = [joined(below, name) for below, names in _walk(folder, episode) for name in names]
    last_kinds = ((".txt", ".json"), (*IMAGES, *VIDEOS))
    return sorted(
        paths, key=lambda name: ([name.lower().endswith(endings) for endings in last_kinds[::-1]], natural_key(name))
    )


def _is_file(name: str) -> bool:
    return name.lower().endswith((*READ, *PICKLES))


def _walk(folder: SourceFolder, episode: str, skip: Collection[str] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder of an episode with its files; hidden folders and files, and those in `skip`, are left out.

    Raises SourceError if there are too many folders and files, or if they are nested too deeply.
    """
    stack, visited = [episode], 0
    while stack:
        below = stack.pop()
        names = [name for name in folder.names(below) if name[0] != "." and joined(below, name) not in skip]
        folders = [name for name in names if not _is_file(name) and folder.is_folder(joined(below, name))]
        files = [name for name in names if name not in {*folders}]
        visited += len(folders) + sum(not name.lower().endswith(IMAGES) for name in files)
        if visited > MAX_NODES or (folders and below.count("/") - episode.count("/") >= MAX_DEPTH):
            raise SourceError(f"more than {MAX_NODES} files, or folders nested too deeply", reason="too_large")
        yield below, files
        stack += [joined(below, name) for name in sorted(folders, reverse=True)]


def episode_fields(folder: SourceFolder, episode: str, source: FolderSource) -> EpisodeFields:
    """Describe every field of an episode."""
    content = EpisodeFields()
    if _is_file(episode):
        _add_file(content, EpisodeFile(folder, episode, episode.rpartition("/")[0]), source, path="")
        return _without_ignored(content, source)
    steps = folder_steps(folder, episode, source) if source.step_files else ()
    if steps:
        content.add(step_fields(folder, steps, source))
    folders = [
        (below, [name for name in names if not _is_ignored(name, inside(below, episode), source)])
        for below, names in _walk(folder, episode, skip={*steps})
    ]
    for below, names in folders:
        if not folder.names(below):
            content.empty_folders.append(below)
        for name in sorted((name for name in names if not name.lower().endswith(IMAGES)), key=natural_key):
            path = ".".join(filter(None, [inside(below, episode), name.rpartition(".")[0] or name]))
            _add_file(content, EpisodeFile(folder, joined(below, name), episode), source, path=path)
    for below, names in folders:
        images = [name for name in names if name.lower().endswith(IMAGES)]
        path = inside(below, episode) or "images"
        unnamed = [joined(below, name) for name in images if joined(below, name) not in content.named_images]
        if len(unnamed) < len(images):
            content.unnamed_images.extend(unnamed)
        elif images and not covers(source.ignore, path):
            is_numbered = not covers(source.unnumbered, path)
            content.add({path: image_field(folder, below, path, names=images, is_numbered=is_numbered)})
    return _without_ignored(content, source)


def joined(below: str, name: str) -> str:
    """Return the path of a name in a folder, which is "" for the folder of the source."""
    return f"{below}/{name}" if below else name


def inside(below: str, episode: str) -> str:
    """Return the dotted path of a folder inside an episode; "" for the episode itself."""
    return below.removeprefix(episode).strip("/").replace("/", ".")


def _is_ignored(name: str, path: str, source: FolderSource) -> bool:
    """Whether `ignore` has a file's name with its ending, or its dotted path with or without the ending."""
    paths = [".".join(filter(None, [path, part])) for part in (name, name.rpartition(".")[0] or name)]
    return name in source.ignore or any(covers(source.ignore, each) for each in paths)


def _without_ignored(content: EpisodeFields, source: FolderSource) -> EpisodeFields:
    kept = {path: each for path, each in sorted(content.fields.items()) if not covers(source.ignore, path)}
    return EpisodeFields(
        kept, content.empty_columns, content.named_images, content.unnamed_images, content.empty_folders
    )


def _add_file(content: EpisodeFields, file: EpisodeFile, source: FolderSource, *, path: str) -> None:
    """Add the fields of one file; raise SourceError, which names the file, if it cannot be read."""
    folder, name = file.folder, file.name
    if not name.lower().endswith(".json"):
        content.add(_file_fields(folder, name, source, path=path))
        return
    with reading(folder.path(name)):
        data = read_file(folder, name, tables.TABLE_LIMIT)
        described = tables.json_fields(data, prefix=f"{path}." if path else "", ignore=source.ignore)
        content.empty_columns.extend(described.empty)
        for column, each in described.fields.items():
            files = _named_images(folder, each, roots=(name.rpartition("/")[0], file.episode))
            content.named_images.update(files)
            content.add({column: images_field(folder, files, column) if files else each})


def _named_images(folder: SourceFolder, column: LazyField, *, roots: Sequence[str]) -> list[str]:
    """Return the images that a column of relative paths names; empty if it is any other column.

    The paths start at the first of the folders `roots` that has the first image, or else at the last of them.
    """
    if column.leaf.form != "texts" or not column.cells:
        return []
    names = [cell.decode().replace("\\", "/").removeprefix("./") for cell in column.cells]
    if not all(name.lower().endswith(IMAGES) and SAFE_PATH.fullmatch(name) and ":" not in name for name in names):
        return []
    places = [[joined(root, name) for name in names] for root in roots]
    return next((files for files in places if folder.size(files[0]) is not None), places[-1])


def _file_fields(folder: SourceFolder, name: str, source: FolderSource, *, path: str) -> dict[str, LazyField]:
    """Describe the fields of one file other than JSON, by path; the error for a file names it."""
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
        if kind.endswith(".parquet"):
            from pipelines.readers.files.parquet import parquet_fields  # noqa: PLC0415 - only Parquet needs pyarrow

            return parquet_fields(folder, name, prefix=prefix, ignore=source.ignore)
        if kind.endswith(TABLES):
            data = read_file(folder, name, tables.TABLE_LIMIT)
            return tables.table_fields(data, kind, prefix=prefix, ignore=source.ignore, header=source.header)
        if kind.endswith(".txt"):
            return {path: text_field(folder, name, path, ignore_lines=source.ignore_lines)}
        if kind.endswith(VIDEOS):
            return {path: video_field(folder, name, path, images=source.images or "jpeg 95")}
        folder.size(name)  # the error of a link or a special file says more than those below
        file = name.rpartition("/")[2]
        if kind.endswith(PACKED):
            raise SourceError("compressed, or an archive: unpack it", reason="unsupported_field")
        message = (
            f"this type of file is not supported ({', '.join(READ)}); leave it out with source.ignore = ['{file}']"
        )
        raise SourceError(message, reason="unsupported_field")
