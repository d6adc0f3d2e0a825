"""List the files that are beside those of a source, and say how videos among them can be declared."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from pipelines.readers.endings import VIDEOS
from pipelines.readers.find import may_be_folder
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import natural_key
from pipelines.readers.reader import LeftOut
from schemas.errors import SourceError

MAX_DEPTH, MAX_FOLDERS = 4, 300  # levels and folders to list


def files_beside(folder: SourceFolder, skip: Collection[str], *, closed: tuple[str, ...] = ()) -> list[str]:
    """List the files in a folder and below, up to limits, without hidden ones and without those in `skip`.

    `skip` contains paths of files and of folders, relative to the folder. A folder with one of the endings `closed`
    counts as a file.
    """
    files: list[str] = []
    level = [""]
    listed = 0
    for _ in range(MAX_DEPTH):
        inner: list[str] = []
        for below in level:
            listed += 1
            if listed > MAX_FOLDERS:
                break
            for name in folder.names(below):
                path = f"{below}/{name}".lstrip("/")
                if name[0] != "." and path not in skip:
                    is_open = not name.endswith(closed) and may_be_listed(folder, path)
                    (inner if is_open else files).append(path)
        level = inner
    return sorted(files, key=natural_key)


def may_be_listed(folder: SourceFolder, name: str) -> bool:
    """Whether a name is a folder to list; a link that leaves the source is not, but counts as a file."""
    try:
        return may_be_folder(folder, name)
    except SourceError:
        return False


def own_videos(files: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    """Return the videos, without those in folders that contain other recordings, which have one of the endings."""
    folders = {name.rpartition("/")[0] for name in files if name.endswith(endings)} - {""}
    videos = [name for name in files if name.lower().endswith(VIDEOS)]
    return [name for name in videos if not any(name.startswith(f"{folder}/") for folder in folders)]


def left_out_files(files: Sequence[str]) -> Iterator[LeftOut]:
    """Count videos and other files."""
    videos = [name for name in files if name.lower().endswith(VIDEOS)]
    others = [name for name in files if not name.lower().endswith(VIDEOS)]
    for what, names in (("videos", videos), ("files", others)):
        if names:
            yield LeftOut(what, len(names), names[0])


def video_notes(files: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return a note about videos that are not read; `values` are placeholders with their values in one episode."""
    videos = [name for name in files if name.lower().endswith(VIDEOS)]
    if not videos:
        return []
    pattern = _suggested(videos[0], values)
    count = "1 video" if len(videos) == 1 else f"{len(videos)} videos"
    what = f"{count} beside the recordings, such as {videos[0]}: not read."
    return [f"{what} To read them, declare source.videos, such as {{ \"camera\" = '{pattern}' }}"]


def _suggested(name: str, values: Mapping[str, str]) -> str:
    """Return the pattern of a video in which words that are values of placeholders are replaced by these."""
    words: list[str] = []
    for word in name.split("/"):
        stem, dot, ending = word.rpartition(".")
        stem, ending = (stem, f".{ending}") if dot else (word, "")
        key = next((key for key, value in values.items() if value and stem == value), None)
        words.append(f"{{{key}}}{ending}" if key and "{" not in "".join(words) else word)
    return "/".join(words)
