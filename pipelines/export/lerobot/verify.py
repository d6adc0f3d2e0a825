"""Comparison of a LeRobotDataset's metadata files and videos with the dataset that was exported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.export.cameras import ExportCamera
from pipelines.export.lerobot.features import NumberedEpisode
from pipelines.export.lerobot.meta import file_location
from pipelines.export.lerobot.paths import EPISODES, INFO, STATS
from pipelines.export.lerobot.shard import Export, exported_steps, file_groups, stored_images
from pipelines.export.lerobot.video import ImageDecoder, flat, frames_of, psnr, squared_error
from pipelines.export.plan import ExportRef, read_verified
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from pipelines.verify import Verification, catch_damage
from schemas.parsing import parse_json
from schemas.source import Array
from stats.formats import lerobot as figures_of

TIMES_NEARER = 4.0  # a frame is out of place if a neighbour's source has a squared error this many times smaller


def check_descriptions(export: Export, out: Verification) -> None:
    """Compare the counts, the statistics, the table of episodes and the columns that only LeRobot reads."""
    refs = export.refs()
    info = parse_json(export.out.read(INFO))
    counts = {
        "total_episodes": sum(ref.episodes for ref in refs),
        "total_frames": sum(sum(ref.lengths) for ref in refs),
    }
    for key, count in counts.items():
        if info[key] != count:
            out.differs(f"{INFO}: {key} is {info[key]}, expected {count}")
    stats = parse_json(export.out.read(STATS))
    expected = figures_of(statistics(export.dataset, selection=Selection(view=export.options.view)))
    for name, figures in expected.items():
        if stats.get(name) != figures:
            out.differs(f"{STATS}: {name} differs from the statistics of the dataset")
    _check_table(export, refs, out)
    _check_columns(export, refs, out)


def _check_columns(export: Export, refs: Sequence[ExportRef], out: Verification) -> None:
    """Compare the columns that only LeRobot reads: `index`, and copies of other columns such as `next.reward`."""
    copies = [feature for feature in export.features if feature.name.startswith("next.")]
    first = 0
    for ref in refs:
        for group in file_groups(export, ref):
            name = group.paths.data()
            with catch_damage(name, out):
                table = pq.read_table(export.out.root / name, columns=["index", *(f.name for f in copies)])
                wrong = [] if table["index"].to_pylist() == [*range(first, first + len(table))] else ["index"]
                for feature in copies:
                    arrays = (feature.array(_read_numbered(export, ref, k)) for k in group.numbers)
                    expected = [value for array in arrays for value in array.to_pylist()]
                    wrong += [] if table[feature.name].to_pylist() == expected else [feature.name]
                for column in wrong:
                    out.differs(f"{name}: {column} differs from the dataset")
            first += sum(ref.lengths[k] for k in group.numbers)


def _read_numbered(export: Export, ref: ExportRef, k: int) -> NumberedEpisode:
    """Read the k-th episode of a shard as it was exported."""
    episode = read_verified(export.dataset, ref.positions[k], export.options.view)
    number, first = ref.first_episode + k, ref.first_step + sum(ref.lengths[:k])
    return NumberedEpisode(episode=episode, number=number, first=first, fps=export.fps, tasks=export.tasks)


def _check_table(export: Export, refs: Sequence[ExportRef], out: Verification) -> None:
    """Compare the table of episodes, including the file positions, with the dataset."""
    version = export.options.version
    rows = [(ref, row) for ref in refs for row in export.rows(ref, [{}] * ref.episodes)]
    if version == "3.0":
        expected = [row.json() | file_location(ref, row, videos=export.videos, fps=export.fps) for ref, row in rows]
        stored = pq.read_table(export.out.root / EPISODES[version], columns=list(expected[0])).to_pylist()
    else:
        expected = [row.json() for _, row in rows]
        stored = [parse_json(line) for line in export.out.read(EPISODES[version]).splitlines()]
    missing: dict[str, Any] = {}
    for number, (actual, wanted) in enumerate(zip_longest(stored, expected, fillvalue=missing)):
        columns = [name for name in {**actual, **wanted} if repr(actual.get(name)) != repr(wanted.get(name))]
        if columns:
            out.differs(f"{EPISODES[version]}: episode {number} differs from the dataset in {', '.join(columns)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFrame:
    """The source of one video frame, and the sources of the frames before and after it in the episode."""

    name: str  # camera, episode and step, for messages
    source: Array  # flat planes
    neighbours: tuple[Array, ...]


def check_video(export: Export, camera: ExportCamera, out: Verification, *, bound: float) -> None:
    """Compare every frame of a camera's videos with its source, and with the sources of the frames before and after."""
    for ref in export.refs():
        for group in file_groups(export, ref):
            name = group.paths.video(camera.key)
            with catch_damage(name, out):
                frames = _expected_frames(export, camera, ref, numbers=group.numbers)
                _check_file(export.out.root / name, frames, out, bound=bound)


def _check_file(path: Path, expected: Iterator[ExpectedFrame], out: Verification, *, bound: float) -> None:
    for frame, step in zip_longest(frames_of(path), expected):
        if step is None:
            out.differs(f"{path.name}: the video has more frames than the dataset has steps")
            return
        if frame is None:
            out.differs(f"{step.name}: the video has no frame for it")
            return
        out.images += 1
        shown = flat(frame)
        if shown.shape != step.source.shape:
            out.differs(f"{step.name}: {frame.height} x {frame.width} is not the size of its source")
            continue
        error = squared_error(shown, step.source)
        quality = psnr(error, frame.height * frame.width)
        if quality < bound:
            out.differs(f"{step.name}: PSNR {quality:.1f} dB, expected at least {bound} dB")
        elif any(_is_nearer(shown, other, error) for other in step.neighbours):
            out.differs(f"{step.name}: shows the image of the step before or after it")


def _is_nearer(shown: Array, other: Array, error: float) -> bool:
    return other.shape == shown.shape and TIMES_NEARER * squared_error(shown, other) < error


def _expected_frames(
    export: Export, camera: ExportCamera, ref: ExportRef, *, numbers: range
) -> Iterator[ExpectedFrame]:
    """Decode the source images of one video file; keeps at most three of them in memory."""
    decoder = ImageDecoder(is_bgr=camera.source.channels == "bgr")
    for k in numbers:
        where = f"{camera.key}: episode {ref.first_episode + k}"
        images = stored_images(export, camera, ref.positions[k], rows=exported_steps(export, ref.positions[k]))
        planes = (flat(decoder.planes(decoder.decoded(image, where=where))) for image in images)
        before, source, number = None, next(planes, None), 0
        while source is not None:
            after = next(planes, None)
            neighbours = tuple(other for other in (before, after) if other is not None)
            yield ExpectedFrame(name=f"{where}: step {number}", source=source, neighbours=neighbours)
            before, source, number = source, after, number + 1
