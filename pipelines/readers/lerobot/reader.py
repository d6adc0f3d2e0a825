"""LeRobotDataset v2.0, v2.1 and v3.0: Parquet and videos or images, one episode a file or several."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from math import prod
from typing import Any

from pipelines.readers.fields import digest
from pipelines.readers.lerobot import columns as parquet
from pipelines.readers.lerobot import episodes as table
from pipelines.readers.lerobot import info as description
from pipelines.readers.lerobot.cameras import Cameras
from pipelines.readers.lerobot.fields import features
from pipelines.readers.lerobot.places import compare
from pipelines.readers.lerobot.steps import Steps
from pipelines.readers.reader import FilePart, ShardRef
from schemas.errors import SourceError
from schemas.source import Field, RawEpisode, Unreadable

DECLARATION = "oxe_spec.toml"
EPISODE = "episode_index"
IMAGES = "jpeg 95"
DENSITY = 0.1  # bytes of a JPEG for one value of a pixel, about


class LerobotReader:
    """A LeRobotDataset; `uri` is its folder, or one above it that holds no other.

    `ignore` names features that are not read; `data_path` and `video_path` say where files are, if info.json has it
    wrong. All three are guessed where `ignore` is None.
    """

    format = "lerobot"

    def __init__(
        self,
        uri: str,
        *,
        ignore: Sequence[str] | None = None,
        data_path: str | None = None,
        video_path: str | None = None,
        images: str = IMAGES,
    ) -> None:
        """Read the descriptions, and the footer of one data file."""
        self.uri, self.images = uri, images
        self.folder = description.root(uri)
        self.info = description.load(self.folder)
        self.episodes = table.load(self.folder, self.info)
        self.tasks = table.tasks(self.folder, self.info)
        told = {"data_path": data_path, "video_path": video_path}
        opened = compare(self.folder, self.info, self.episodes, ignore=ignore or (), told=told)
        self.features = features(self.folder, self.info, opened, images=images, tasks=self.tasks is not None)
        self.wrong = (*opened.wrong, *self.features.absent.values())
        if self.wrong and ignore is not None:
            first, *others = self.wrong
            message = "; ".join([first.message, *(error.message for error in others)])
            raise SourceError(message, reason=first.reason, file=first.file)
        self.ignore = (*opened.ignore, *self.features.absent)
        self.places = opened.places
        self.fields: tuple[Field, ...] = tuple(self.features.fields())

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name the data files of every split, with the episodes that each holds."""
        return self._files

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[int]]:
        """Say which rows of the table of episodes each file holds of each split."""
        found: dict[tuple[str, str], list[int]] = {}
        for split, rows in table.splits(self.info, self.places.indices).items():
            for row in rows:
                found.setdefault((split, self.places.data(row)), []).append(row)
        return found

    @cached_property
    def _owned(self) -> dict[str, set[int]]:
        """Say which episodes each file holds, over all splits."""
        found: dict[str, set[int]] = {}
        for (_, name), rows in self._rows.items():
            found.setdefault(name, set()).update(self.places.indices[row] for row in rows)
        return found

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        videos = [key for key in self.features.beside if self.info.features[key].dtype == "video"]
        sizes = self.folder.sizes(dict.fromkeys(name for _, name in self._rows))
        clips = {row: [self.places.clip(key, row).file for key in videos] for row in range(len(self.episodes))}
        filmed = self.folder.sizes(dict.fromkeys(name for names in clips.values() for name in names))
        frame = sum(round(DENSITY * prod(self.info.features[key].shape)) for key in videos)
        lengths, last = self.episodes.column("length"), {name: split for split, name in self._rows}
        first = 0
        splits: dict[str, list[FilePart]] = {}
        for (split, name), rows in self._rows.items():
            size = sizes[name]
            beside = sum(filmed.pop(clip, None) or 0 for row in rows for clip in clips[row])  # a file counts once
            part = FilePart(
                name=name,
                size=None if size is None else size + beside,
                first=first,
                count=len(rows),
                is_tail=last[name] == split,
                becomes=(size or 0) + sum(lengths[row] for row in rows) * frame,
            )
            splits.setdefault(split, []).append(part)
            first += len(rows)
        return {split: tuple(parts) for split, parts in splits.items()}

    def place(self, name: str) -> str:
        """Give a file's full path."""
        return self.folder.path(name)

    def description(self) -> dict[str, Any]:
        """Name the version, the robot and its clock, and the fields by their digest."""
        return {
            "format": self.format,
            "codebase_version": self.info.version,
            "robot_type": self.info.robot,
            "fps": self.info.fps,
            "fields_sha256": digest(self.fields),
        }

    def layout(self) -> dict[str, Any]:
        """Give the keys of `source` that open it the same way."""
        told = self.info.templates
        paths = {"data_path": self.places.data_path, "video_path": self.places.video_path}
        changed = {kind: path for kind, path in paths.items() if path != (told[kind] or self.info.usual[kind])}
        images = {"images": self.images} if self.images != IMAGES else {}
        return {**({"ignore": list(self.ignore)} if self.ignore else {}), **changed, **images}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of files."""
        return self.folder.tails(names, count)

    def declaration(self) -> str | None:
        """Give the `oxe_spec.toml` that our exports carry."""
        return None if self.folder.size(DECLARATION) is None else self.folder.read(DECLARATION).decode()

    def notes(self) -> Sequence[str]:
        """Say what info.json has wrong."""
        return [*(error.message for error in self.wrong), *table.oddities(self.info, self.episodes)]

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        with closing(Cameras(self.folder, self.places, images=self.images)) as cameras:
            steps = Steps(
                places=self.places, features=self.features, tasks=self.tasks or {}, cameras=cameras, wanted=columns
            )
            for part in ref.parts:
                yield from self._read_part(part, ref.split, steps=steps)

    def _read_part(self, part: FilePart, split: str, *, steps: Steps) -> Iterator[RawEpisode | Unreadable]:
        path, done = self.folder.path(part.name), 0
        rows = self._rows.get((split, part.name), [])[part.skip :][: part.count]
        try:
            with parquet.opened(self.folder, part.name) as file:
                self.features.check(file.schema_arrow, self.info, self.ignore)
                held = parquet.Rows(file, steps.columns(), path)
                runs = self._runs(held, part.name)
                for row in rows:
                    index = part.first + done
                    try:
                        read, metadata = steps.read(held, row, runs.pop(self.places.indices[row], None))
                        yield RawEpisode(index=index, split=split, steps=read, metadata=metadata, file=path)
                    except SourceError as error:
                        yield Unreadable.of(error, index=index, split=split, file=path)
                    done += 1
            if part.is_tail:
                yield from self._undeclared(runs, part, split)
            failure = SourceError("was planned with more episodes", reason="missing_record")
        except SourceError as error:
            failure = error
        for index in range(part.first + done, part.first + part.count):
            yield Unreadable.of(failure, index=index, split=split, file=path)

    def _runs(self, held: parquet.Rows, name: str) -> dict[int, tuple[int, int]]:
        """Find the rows of each episode by what they say; where they say nothing, a file of v2 is its one episode."""
        owned = self._owned.get(name, set())
        if EPISODE not in held.file.schema_arrow.names:
            if len(owned) == 1 and not self.info.is_v3:
                return dict.fromkeys(owned, (0, held.file.metadata.num_rows))
            message = f"holds several episodes, but no column '{EPISODE}'"
            raise SourceError(message, reason="bad_parquet", file=held.path)
        return held.runs(EPISODE)

    def _undeclared(self, runs: Mapping[int, tuple[int, int]], part: FilePart, split: str) -> Iterator[Unreadable]:
        for index in sorted(runs.keys() - self._owned[part.name]):
            error = SourceError(f"holds rows of episode {index}, which meta/ does not list", reason="undeclared_record")
            yield Unreadable.of(error, index=None, split=split, file=self.folder.path(part.name))
