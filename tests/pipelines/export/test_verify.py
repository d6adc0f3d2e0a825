"""`oxe verify` finds every change to an export."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.store.dataset import Dataset
from tests.pipelines.export.makers import converted, episodes, export
from tests.pipelines.toy import Run, oxe

av = pytest.importorskip("av", reason="videos are the extra 'lerobot'")
VIDEO = "videos/observation.images.primary/chunk-000/file-000.mp4"
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return converted(tmp_path_factory.mktemp("toy"), episodes(3))


@pytest.fixture(scope="module")
def exports(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for video in ("h264", "av1", "none"):
        export(toy, folder / video, "--video", video)
    assert oxe("export", "rlds", toy.path, "--out", folder / "rlds").code == 0
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def copy(exports: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(exports[name], tmp_path / name))


def rewritten(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a Parquet file."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def reordered(path: Path, order: Callable[[list[Any]], list[Any]]) -> None:
    """Re-encode a video's frames in a different order, without loss."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", 10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for pixels in order(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="yuv420p")))
        container.mux(stream.encode())


def found(done: Run, text: str) -> None:
    assert (done.code, text in done.err) == (1, True), done.err


@pytest.mark.parametrize("name", ["h264", "av1", "none", "rlds"])
def test_an_export_is_what_its_dataset_is(exports: dict[str, Path], name: str) -> None:
    done = oxe("verify", exports[name])
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{exports[name]}: 3 episodes, 21 steps, ")
    assert oxe("verify", exports[name], "--json").json()["images"] == 21


def test_two_frames_that_change_places_are_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    reordered(out / VIDEO, lambda frames: [*frames[:8], frames[9], frames[8], *frames[10:]])
    done = oxe("verify", out)
    found(done, "observation.images.primary: episode 1: step 2: ")
    assert "observation.images.primary: episode 1: step 3: " in done.err
    assert "2 differences" in done.err


def test_a_frame_that_is_shown_twice_instead_of_its_neighbour_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    reordered(out / VIDEO, lambda frames: [*frames[:4], frames[3], *frames[5:]])
    found(oxe("verify", out), "observation.images.primary: episode 0: step 4: ")


def test_a_frame_that_is_near_enough_but_nearer_to_its_neighbour_is_found(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy("h264")
    reordered(out / VIDEO, lambda frames: [*frames[:8], frames[9], frames[8], *frames[10:]])
    record = json.loads((out / "oxe_export.json").read_text())
    record["report"]["cameras"]["observation.images.primary"]["psnr"] = 1.0
    (out / "oxe_export.json").write_text(json.dumps(record))
    found(oxe("verify", out), "episode 1: step 2: shows the image of the step before or after it")


def test_a_video_that_is_too_short_or_too_long_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    whole = (out / VIDEO).read_bytes()
    reordered(out / VIDEO, lambda frames: frames[:-1])
    found(oxe("verify", out), "observation.images.primary: episode 2: step 7: the video has no frame for it")
    (out / VIDEO).write_bytes(whole)
    reordered(out / VIDEO, lambda frames: [*frames, frames[-1]])
    found(oxe("verify", out), "the video has more frames than the dataset has steps")
    (out / VIDEO).write_bytes(whole[:200])
    found(oxe("verify", out), f"{VIDEO}: cannot be read")
    (out / VIDEO).unlink()
    assert oxe("verify", out).code == 1


def test_a_video_of_less_quality_than_the_record_says_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    reordered(
        out / VIDEO, lambda frames: [np.clip(frame.astype(int) // 24 * 24, 0, 255).astype(np.uint8) for frame in frames]
    )
    found(oxe("verify", out), "dB, expected at least")


@pytest.mark.parametrize("column", ["action", "observation.state", "raw.observation.torque", "is_first"])
def test_a_number_that_was_changed_is_found(copy: Callable[[str], Path], column: str) -> None:
    out = copy("h264")

    def change(rows: list[dict[str, Any]]) -> None:
        value = rows[8][column]
        rows[8][column] = not value if isinstance(value, bool) else [np.nextafter(np.float32(value[0]), 9), *value[1:]]

    rewritten(out / DATA, change)
    found(oxe("verify", out), f"episode toy-000001: {column}: [2")


def test_a_column_that_only_lerobot_reads_is_compared_too(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    rewritten(out / DATA, lambda rows: rows[8].update(index=7))
    found(oxe("verify", out), f"{DATA}: index differs from the dataset")


def test_an_image_that_was_changed_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("none")

    def change(rows: list[dict[str, Any]]) -> None:
        key = "observation.images.primary"
        rows[3][key], rows[4][key] = rows[4][key], rows[3][key]

    rewritten(out / DATA, change)
    found(oxe("verify", out), "episode toy-000000: observation.images.primary: step 3: ")


def test_an_instruction_that_was_changed_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    rewritten(out / DATA, lambda rows: [row.update(task_index=0) for row in rows] and None)
    found(oxe("verify", out), "episode toy-000001: instructions")


def test_an_episode_that_is_missing_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    rewritten(out / EPISODES, lambda rows: rows.pop() and None)
    rewritten(out / DATA, lambda rows: rows.__delitem__(slice(13, None)))
    found(oxe("verify", out), "episode 2: missing from the export")


def test_an_episode_that_is_looked_for_in_the_wrong_place_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    rewritten(out / EPISODES, lambda rows: rows[1].update({"videos/observation.images.primary/from_timestamp": 0.7}))
    found(oxe("verify", out), "episode 1 differs from the dataset in videos/observation.images.primary/from_timestamp")


def test_statistics_and_counts_that_are_not_the_datasets_are_found(copy: Callable[[str], Path]) -> None:
    out = copy("h264")
    stats = json.loads((out / "meta/stats.json").read_text())
    stats["action"]["q99"][0] += 1e-9
    (out / "meta/stats.json").write_text(json.dumps(stats))
    info = json.loads((out / "meta/info.json").read_text())
    (out / "meta/info.json").write_text(json.dumps(info | {"total_frames": 20}))
    done = oxe("verify", out)
    found(done, "meta/stats.json: action differs from the statistics of the dataset")
    assert "total_frames is 20, expected 21" in done.err


def test_a_damaged_rlds_export_is_found(copy: Callable[[str], Path]) -> None:
    out = copy("rlds")
    shard = next(out.glob("*.tfrecord-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    found(oxe("verify", out), "missing from the export, or unreadable")


def test_another_dataset_is_not_the_one_it_was_made_from(exports: dict[str, Path], tmp_path: Path) -> None:
    made = episodes(3)
    made[2]["action"] = made[2]["action"] + np.float32(1)  # type: ignore[operator]
    other = converted(tmp_path, made)
    done = oxe("verify", exports["h264"], "--source", other.path)
    found(done, f"oxe_export.json: {other.uri} or its view has changed since the export")
    assert "episode toy-000002: action: [0, 0] is" in done.err


def test_a_dataset_that_has_moved_has_to_be_named(toy: Dataset, copy: Callable[[str], Path], tmp_path: Path) -> None:
    out = copy("none")
    (out / "oxe_runs.jsonl").write_text(json.dumps({"source": str(tmp_path / "gone")}) + "\n")
    done = oxe("verify", out)
    assert (done.code, "cannot read the dataset" in done.err, done.err.endswith("pass --source\n")) == (2, True, True)
    assert oxe("verify", out, "--source", toy.path).code == 0
