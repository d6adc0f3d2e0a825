"""What `verify` compares of a LeRobotDataset besides its episodes: what describes it, and its videos."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.export.cameras import Kept
from pipelines.export.lerobot.features import Placed
from pipelines.export.lerobot.meta import place_of
from pipelines.export.lerobot.places import EPISODES, INFO, STATS
from pipelines.export.lerobot.shard import Export, kept_rows, parts_of, stored_images
from pipelines.export.lerobot.video import Pictures, flat, frames_of, psnr, squared_error
from pipelines.export.plan import ExportRef, checked
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from pipelines.verify import Verification, catch_damage
from schemas.source import Array
from stats.formats import lerobot as figures_of

NEARER = 4.0  # times: a frame is out of place if a neighbour's source is so much nearer to it than its own


def check_descriptions(export: Export, out: Verification) -> None:
    """Compare counts, places of episodes, and the statistics of the whole."""
    refs = export.refs()
    info = json.loads(export.out.read(INFO))
    counts = {
        "total_episodes": sum(ref.episodes for ref in refs),
        "total_frames": sum(sum(ref.lengths) for ref in refs),
    }
    for key, count in counts.items():
        if info[key] != count:
            out.differs(f"{INFO}: {key} is {info[key]}, it has {count}")
    found = json.loads(export.out.read(STATS))
    wanted = figures_of(statistics(export.dataset, selection=Selection(view=export.asked.view)))
    for name, figures in wanted.items():
        if found.get(name) != figures:
            out.differs(f"{STATS}: {name}: not the statistics of the dataset")
    _check_table(export, refs, out)
    _check_columns(export, refs, out)


def _check_columns(export: Export, refs: Sequence[ExportRef], out: Verification) -> None:
    """Compare the columns that only LeRobot reads: the number of each step, and what is said twice."""
    theirs = [feature for feature in export.features if feature.name.startswith("next.")]
    first = 0
    for ref in refs:
        for part in parts_of(export, ref):
            name = part.places.data()
            with catch_damage(name, out):
                found = pq.read_table(export.out.root / name, columns=["index", *(f.name for f in theirs)])
                wrong = [] if found["index"].to_pylist() == [*range(first, first + len(found))] else ["index"]
                for feature in theirs:
                    wanted = [
                        value for k in part.numbers for value in feature.array(_placed(export, ref, k)).to_pylist()
                    ]
                    wrong += [] if found[feature.name].to_pylist() == wanted else [feature.name]
                for word in wrong:
                    out.differs(f"{name}: {word} is not as in the dataset")
            first += sum(ref.lengths[k] for k in part.numbers)


def _placed(export: Export, ref: ExportRef, k: int) -> Placed:
    """Read the k-th episode of a shard as it was exported."""
    episode = checked(export.dataset, ref.positions[k], export.asked.view)
    number, first = ref.first_episode + k, ref.first_step + sum(ref.lengths[:k])
    return Placed(episode=episode, number=number, first=first, fps=export.fps, tasks=export.tasks)


def _check_table(export: Export, refs: Sequence[ExportRef], out: Verification) -> None:
    """Compare what the table of episodes says, places in files among it, with what it should say."""
    version = export.asked.version
    rows = [(ref, row) for ref in refs for row in export.rows(ref, [{}] * ref.episodes)]
    if version == "3.0":
        wanted = [row.json() | place_of(ref, row, videos=export.videos, fps=export.fps) for ref, row in rows]
        found = pq.read_table(export.out.root / EPISODES[version], columns=list(wanted[0])).to_pylist()
    else:
        wanted = [row.json() for _, row in rows]
        found = [json.loads(line) for line in export.out.read(EPISODES[version]).splitlines()]
    nothing: dict[str, Any] = {}
    for number, (row, place) in enumerate(zip_longest(found, wanted, fillvalue=nothing)):
        differing = [name for name in {**row, **place} if repr(row.get(name)) != repr(place.get(name))]
        if differing:
            out.differs(f"{EPISODES[version]}: episode {number}: {', '.join(differing)}: not as in the dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a camera: the frame that should be shown, and those before and after it in the episode."""

    name: str
    own: Array  # flat planes
    beside: tuple[Array, ...]


def check_video(export: Export, kept: Kept, out: Verification, *, bound: float) -> None:
    """Compare every frame of a camera's videos with its source and with its neighbours' sources."""
    for ref in export.refs():
        for part in parts_of(export, ref):
            name = part.places.video(kept.key)
            with catch_damage(name, out):
                _check_file(export.out.root / name, _steps(export, kept, ref, numbers=part.numbers), out, bound=bound)


def _check_file(path: Path, steps: Iterator[Step], out: Verification, *, bound: float) -> None:
    for frame, step in zip_longest(frames_of(path), steps):
        if step is None:
            out.differs(f"{path.name}: more frames than steps")
            return
        if frame is None:
            out.differs(f"{step.name}: the video has ended")
            return
        out.images += 1
        shown = flat(frame)
        if shown.shape != step.own.shape:
            out.differs(f"{step.name}: {frame.height} x {frame.width}, not the size of its source")
            continue
        error = squared_error(shown, step.own)
        quality = psnr(error, frame.height * frame.width)
        if quality < bound:
            out.differs(f"{step.name}: PSNR {quality:.1f} dB, the export's record says at least {bound} dB")
        elif any(NEARER * squared_error(shown, other) < error for other in step.beside if other.shape == shown.shape):
            out.differs(f"{step.name}: shows what the step beside it shows")


def _steps(export: Export, kept: Kept, ref: ExportRef, *, numbers: range) -> Iterator[Step]:
    """Decode the sources of one file's frames, three at a time."""
    pictures = Pictures(is_bgr=kept.camera.channels == "bgr")
    for k in numbers:
        where = f"{kept.key}: episode {ref.first_episode + k}"
        images = stored_images(export, kept, ref.positions[k], rows=kept_rows(export, ref.positions[k]))
        planes = (flat(pictures.planes(pictures.decoded(image, where=where))) for image in images)
        before, own, number = None, next(planes, None), 0
        while own is not None:
            after = next(planes, None)
            beside = tuple(other for other in (before, after) if other is not None)
            yield Step(name=f"{where}: step {number}", own=own, beside=beside)
            before, own, number = own, after, number + 1
