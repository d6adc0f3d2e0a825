"""Frames as torch sees them, against the episodes that `open_dataset` gives."""

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oxe_tools import open_dataset, torch_dataset
from oxe_tools import stats as statistics
from pipelines.convert.convert import convert
from schemas.declarations import catalog
from schemas.errors import DatasetError, UsageError, ViewError
from schemas.source import Array, Bytes
from schemas.store.manifest import encode_manifest
from tests.pipelines.toy import ROOT
from tests.schemas.makers import TOY, load, make_jpeg, publish, toy_fields, toy_values, write_source
from tests.servers import Server

torch = pytest.importorskip("torch", reason="needs the extra 'finetune'")

LENGTHS = (5, 130, 3)
IMAGE, WRIST, PRIMARY = (f"observation.images.{name}" for name in ("image", "wrist", "primary"))
DELTAS = {"action": [-0.2, 0, 0.2, 0.4], "observation.state": [-0.4, 0], IMAGE: [-0.2, 0, 0.2]}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("frames"), lengths=LENGTHS)


def pixels(data: Bytes | None) -> Array:
    """Decode with Pillow, [3, H, W]."""
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def close(found: Any, data: Bytes | None) -> bool:
    """Whether a float image equals what Pillow decodes, up to the differences between JPEG decoders."""
    return bool(np.abs(found.numpy() * 255 - pixels(data)).max() < 2.5)


def same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        equal = value == other[key] if isinstance(value, str | list) else torch.equal(value, other[key])
        assert equal, key


@pytest.mark.parametrize("view", [None, "openvla", "eef_delta"])
def test_every_frame_is_a_step_of_the_episode_that_the_view_shows(out: Path, view: str | None) -> None:
    dataset, frames = open_dataset(out), torch_dataset(out, view=view, cameras=["image"])
    row, first = 0, 0
    for i, length in enumerate(LENGTHS):
        episode = dataset.episode(i, view=view)
        assert episode.state is not None
        assert episode.timestamp is not None
        assert episode.instruction_index is not None
        for t in range(len(episode)):
            item = frames[row]
            step = round(episode.timestamp[t] * 5)
            np.testing.assert_array_equal(item["action"].numpy(), episode.action[t])
            np.testing.assert_array_equal(item["observation.state"].numpy(), episode.state[t])
            numbers = [item[key].item() for key in ("timestamp", "frame_index", "episode_index", "index")]
            assert numbers == [episode.timestamp[t], step, i, first + step]
            assert item["task"] == episode.instructions[episode.instruction_index[t]]
            assert frames.tasks[item["task_index"]] == item["task"]
            assert close(item[IMAGE], episode.images["image"][t])
            row += 1
        first += length
    assert row == len(frames)


def test_an_item_is_of_lerobots_types_and_as_features_say(out: Path) -> None:
    frames = torch_dataset(out, cameras=["image"])
    item = frames[7]
    assert item.pop("task") == "open it"
    assert item.keys() == frames.features.keys()
    for key, told in frames.features.items():
        dtype = "float32" if told["dtype"] == "image" else told["dtype"]
        assert (str(item[key].dtype), tuple(item[key].shape) or (1,)) == (f"torch.{dtype}", told["shape"]), key
    assert frames.features[IMAGE] == {
        "dtype": "image",
        "shape": (3, 16, 24),
        "names": ["channels", "height", "width"],
    }
    assert frames.features["action"]["names"] == ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    assert (frames.fps, frames.cameras, frames.tasks) == (5, (IMAGE,), ("open it", "close it"))
    assert item[IMAGE].is_contiguous()
    assert 0 <= item[IMAGE].min() < item[IMAGE].max() <= 1


def test_deltas_stack_what_lies_beside_a_frame_and_say_what_is_padding(out: Path) -> None:
    plain, frames = (
        torch_dataset(out, cameras=["image"]),
        torch_dataset(out, cameras=["image"], delta_timestamps=DELTAS),
    )
    bounds = list(zip(*(plain.episode_data_index[key].tolist() for key in ("from", "to")), strict=True))
    assert bounds == [(0, 5), (5, 135), (135, 138)]
    for start, end in bounds:
        for row in (start, start + 1, end - 2, end - 1):
            item, is_pad = frames[row], plain[row]
            for key, deltas in DELTAS.items():
                rows = [row + round(delta * 5) for delta in deltas]
                assert item[f"{key}_is_pad"].tolist() == [not start <= r < end for r in rows]
                beside = torch.stack([plain[min(max(r, start), end - 1)][key] for r in rows])
                assert torch.equal(item[key], beside)
            for key in ("timestamp", "index", "task_index"):
                assert torch.equal(item[key], is_pad[key])


def test_negative_numbers_count_from_the_end_and_beyond_it_is_an_index_error(out: Path) -> None:
    frames = torch_dataset(out, cameras=["image"])
    same(frames[-1], frames[137])
    same(frames[-138], frames[np.int64(0)])
    for i in (138, -139):
        with pytest.raises(IndexError, match=f"no frame {i}: the dataset has 138"):
            frames[i]
    with pytest.raises(TypeError):
        frames["0"]
    assert sum(1 for _ in frames) == 138  # Python's own iteration ends by the IndexError


def test_an_item_may_be_changed_without_changing_the_dataset(out: Path) -> None:
    frames = torch_dataset(out, cameras=["image"])
    before = {key: value if isinstance(value, str) else value.clone() for key, value in frames[3].items()}
    for value in frames[3].values():
        if not isinstance(value, str):
            value.zero_()
    same(frames[3], before)


# What is chosen


def test_episodes_are_chosen_by_their_index_and_keep_it(out: Path) -> None:
    whole, frames = torch_dataset(out, cameras=["image"]), torch_dataset(out, cameras=["image"], episodes=[2, 0])
    assert len(frames) == 8
    for i, row in enumerate([*range(5), *range(135, 138)]):
        same(frames[i], whole[row])


def test_a_split_is_chosen_by_name(tmp_path: Path) -> None:
    from tests.pipelines.counted import make_counted

    toy = make_counted(tmp_path)
    train, val = torch_dataset(toy.out, split="train"), torch_dataset(toy.out, split="val", view="torque")
    assert (len(train), len(val)) == (3 + 40 + 200 + 7, 1 + 90)
    assert [val[0]["episode_index"].item(), val[0]["index"].item()] == [4, 250]
    np.testing.assert_array_equal(val[5]["action"], open_dataset(toy.out).episode(5, view="torque").action[4])
    assert train.stats.to_json() == statistics(toy.out, split="train").to_json()
    with pytest.raises(UsageError, match=r"no steps are left: view 'nothing' masks them all"):
        torch_dataset(toy.out, view="nothing")


def test_statistics_are_those_of_the_view(out: Path) -> None:
    frames = torch_dataset(out, view="openvla", cameras=["image"])
    expected = statistics(out, view="openvla")
    assert frames.stats.to_json() == expected.to_json()
    actions = np.stack([frames[i]["action"] for i in range(len(frames))])
    assert frames.stats.norm("action").q99 == pytest.approx(np.quantile(actions.astype(np.float64), 0.99, axis=0))


def test_cameras_are_chosen_by_name_or_role_and_named_so(out: Path) -> None:
    assert torch_dataset(out).cameras == (IMAGE, WRIST)
    assert torch_dataset(out, cameras=["wrist", "primary"]).cameras == (WRIST, PRIMARY)
    assert torch_dataset(out, cameras=[]).cameras == ()
    assert torch_dataset(out, delta_timestamps={PRIMARY: [0]}).cameras == (PRIMARY, WRIST)
    assert not {IMAGE, WRIST} & torch_dataset(out, cameras=[])[0].keys()
    one, other = torch_dataset(out, cameras=["image"]), torch_dataset(out, cameras=["primary"])
    assert torch.equal(one[9][IMAGE], other[9][PRIMARY])


def test_images_of_a_camera_that_is_not_asked_for_are_not_decoded(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.data import cameras

    seen: list[bytes] = []
    inner = cameras.decode

    def spy(data: bytes) -> Array:
        seen.append(data)
        return inner(data)

    monkeypatch.setattr(cameras, "decode", spy)
    torch_dataset(out, cameras=["image"])[1]
    assert seen == [open_dataset(out).frame(0, 1)["image"]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"view": "opnvla"}, ViewError, "toy has no view 'opnvla'; did you mean 'openvla'?"),
        ({"split": "trian"}, UsageError, "no split 'trian'; did you mean 'train'? (known: train)"),
        ({"episodes": [1, 9, 7]}, UsageError, "no episode 7 (2 requested are missing): episode_index goes from 0 to 2"),
        ({"episodes": []}, UsageError, "no steps are left: no episode is chosen"),
        (
            {"cameras": ["wirst"]},
            UsageError,
            "no colour camera 'wirst'; did you mean 'wrist'? (known: image, primary, wrist)",
        ),
        ({"cameras": ["depth"]}, UsageError, "no colour camera 'depth'. (known: image, primary, wrist)"),
        ({"delta_timestamps": {"acton": [0]}}, UsageError, "delta_timestamps: no key 'acton'; did you mean 'action'?"),
        ({"delta_timestamps": {IMAGE: [0]}, "cameras": ["wrist"]}, UsageError, f"delta_timestamps: no key '{IMAGE}'"),
        ({"delta_timestamps": {"action": [0.3]}}, UsageError, "0.3 s is not a multiple of 1/fps = 0.2 s"),
        (
            {"image_type": "float"},
            UsageError,
            "image_type: unknown value 'float'; did you mean 'float32'? (known: float32, uint8)",
        ),
        ({"missing": "zero"}, UsageError, "missing: unknown value 'zero'; did you mean 'error'? (known: black, error)"),
    ],
)
def test_what_is_not_there_is_said_at_once(out: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        torch_dataset(out, **options)
    assert message in str(caught.value)


# Images


def test_images_may_stay_bytes(out: Path) -> None:
    as_bytes, as_floats = (
        torch_dataset(out, image_type="uint8", cameras=["image"]),
        torch_dataset(out, cameras=["image"]),
    )
    found = as_bytes[4][IMAGE]
    assert found.dtype == torch.uint8
    assert torch.equal(found / 255, as_floats[4][IMAGE])


def test_a_missing_frame_is_an_error_that_names_it_or_black_and_flagged(out: Path) -> None:
    with pytest.raises(
        DatasetError,
        match=r"train-00000-of-00001\.parquet: observation\.images\.wrist has no image in row 2; missing='black'",
    ):
        torch_dataset(out)[2]
    black = torch_dataset(out, missing="black", delta_timestamps={WRIST: [-0.2, 0, 0.2]})
    item = black[3]
    assert item[f"{WRIST}_is_missing"].tolist() == [True, False, False]
    assert item[WRIST].shape == (3, 3, 5, 6)
    assert not item[WRIST][0].any()
    assert item[WRIST][1].any()
    assert not item[f"{IMAGE}_is_missing"]
    alone = torch_dataset(out, missing="black", cameras=["wrist"])[2]
    assert (alone[f"{WRIST}_is_missing"].item(), tuple(alone[WRIST].shape)) == (True, (3, 5, 6))


def test_transforms_get_the_images_as_they_would_be_given(out: Path) -> None:
    plain = torch_dataset(out, cameras=["image"], delta_timestamps={IMAGE: [0, 0.2]})
    turned = torch_dataset(
        out, cameras=["image"], delta_timestamps={IMAGE: [0, 0.2]}, image_transforms=lambda x: 1 - x.flip(-1)
    )
    assert torch.equal(turned[1][IMAGE], 1 - plain[1][IMAGE].flip(-1))


def test_a_camera_that_recorded_bgr_is_given_as_rgb(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    manifest = json.loads((copy / "meta/manifest.json").read_text())
    [camera] = [camera for camera in manifest["columns"]["cameras"] if camera["leaf"] == "image"]
    camera["channels"] = "bgr"
    del manifest["xxh3_128"]
    (copy / "meta/manifest.json").write_bytes(encode_manifest(manifest))
    one, other = torch_dataset(copy, cameras=["image"]), torch_dataset(out, cameras=["image"])
    assert torch.equal(one[0][IMAGE], other[0][IMAGE].flip(0))


def test_a_damaged_image_is_named(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    [path] = (copy / "data").iterdir()
    jpeg, content = open_dataset(copy).frame(0, 3)["image"], path.read_bytes()
    assert jpeg is not None
    path.write_bytes(content.replace(jpeg, jpeg[:20] + bytes(len(jpeg) - 20)))
    frames = torch_dataset(copy, cameras=["image"])
    frames[2]
    with pytest.raises(DatasetError, match=rf"{path}: damaged .the image in row 3 of observation\.images\.image does"):
        frames[3]


def test_images_of_two_sizes_in_one_window_are_refused(tmp_path: Path) -> None:
    values = toy_values(2, seed=0)
    values["observation.image"] = [make_jpeg(16, 24), make_jpeg(8, 8)]
    write_source(tmp_path / "source", toy_fields(), [values])
    convert(load(), tmp_path / "out", source=str(tmp_path / "source"))
    frames = torch_dataset(tmp_path / "out", cameras=["image"], delta_timestamps={IMAGE: [0, 0.2]})
    assert frames[1][IMAGE].shape == (2, 3, 8, 8)  # both are the last frame
    with pytest.raises(
        DatasetError, match=r"observation\.images\.image: different image sizes in one episode: 8 x 8 and 16 x 24"
    ):
        frames[0]


# Datasets that lack something


def converted(tmp_path: Path, text: str, *, without: str = "#") -> Path:
    fields = [field for field in toy_fields() if not field.path.startswith(without)]
    write_source(tmp_path / "source", fields, [toy_values(4, seed=0), toy_values(3, seed=1)])
    convert(load(text), tmp_path / "out", source=str(tmp_path / "source"))
    return tmp_path / "out"


def test_without_a_rate_there_is_no_timestamp_and_no_delta(tmp_path: Path) -> None:
    out = converted(tmp_path, TOY.replace("control_hz = 5\n", ""))
    frames = torch_dataset(out, cameras=["image"])
    assert (frames.fps, "timestamp" in frames[0], "timestamp" in frames.features) == (None, False, False)
    with pytest.raises(UsageError, match="the dataset has neither a control_hz nor timestamps"):
        torch_dataset(out, delta_timestamps={"action": [0]})


def test_recorded_timestamps_are_a_rate_too(tmp_path: Path) -> None:
    text = TOY.replace("control_hz = 5\n", 'timestamp = "reward"\n')
    fields, values = toy_fields(), toy_values(6, seed=0)
    values["reward"] = np.float32([100, 100.25, 100.5, 100.75, 101, 101.25])
    write_source(tmp_path / "source", fields, [values])
    convert(load(text), tmp_path / "out", source=str(tmp_path / "source"))
    frames = torch_dataset(tmp_path / "out", cameras=[], delta_timestamps={"action": [0, 0.5]})
    assert (frames.fps, frames[1]["timestamp"].item()) == (4, 100.25)
    np.testing.assert_array_equal(frames[1]["action"][1], frames[3]["action"][0])


def test_without_instructions_the_task_is_empty(tmp_path: Path) -> None:
    out = converted(tmp_path, TOY.replace('language   = "language_instruction"\n', ""), without="language")
    frames = torch_dataset(out, cameras=[])
    assert (frames[0]["task"], frames[0]["task_index"].item(), frames.tasks) == ("", -1, ())


def test_without_cameras_there_are_just_numbers(tmp_path: Path) -> None:
    out = converted(
        tmp_path, TOY.replace('[cameras]\nprimary = "observation.image"\n', ""), without="observation.image"
    )
    frames = torch_dataset(out, cameras=[])
    assert sorted(frames[0]) == sorted([*frames.features, "task"])
    assert torch_dataset(out).cameras == (WRIST,)


# Processes


def batches(frames: Any, **options: Any) -> list[dict[str, Any]]:
    sampler = torch.utils.data.RandomSampler(frames, generator=torch.Generator().manual_seed(3))
    return list(torch.utils.data.DataLoader(frames, batch_size=16, sampler=sampler, **options))


@pytest.fixture
def shared(out: Path) -> tuple[Any, list[dict[str, Any]]]:
    frames = torch_dataset(out, missing="black", delta_timestamps=DELTAS)
    return frames, batches(frames)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_the_batches_that_this_process_gives(shared: tuple[Any, list[Any]], start: str) -> None:
    frames, expected = shared
    found = batches(frames, num_workers=2, multiprocessing_context=start)
    assert len(found) == len(expected) == 9
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_a_pickled_dataset_opens_its_files_again(out: Path) -> None:
    frames = torch_dataset(out, missing="black", delta_timestamps=DELTAS)
    same(pickle.loads(pickle.dumps(frames))[20], frames[20])  # noqa: S301 - our own bytes


def test_a_dataset_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    out = publish(tmp_path / "one", lengths=(3,))
    pickled = pickle.dumps(torch_dataset(out))
    shutil.rmtree(out)
    publish(tmp_path / "two", lengths=(4,)).rename(out)
    for _ in range(2):
        with pytest.raises(DatasetError, match="was replaced after it was opened"):
            pickle.loads(pickled)[0]  # noqa: S301 - our own bytes


@pytest.mark.slow
def test_a_remote_dataset_is_read_by_forked_workers_too(tmp_path: Path, web: Server) -> None:
    out = publish(tmp_path, lengths=(5, 4))
    near, far = torch_dataset(out, missing="black"), torch_dataset(f"{web.url}/out", missing="black")
    same(far[3], near[3])
    for one, other in zip(batches(far, num_workers=2, multiprocessing_context="fork"), batches(near), strict=True):
        same(one, other)


def test_without_torch_the_extra_is_named(out: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None; import oxe_tools; oxe_tools.torch_dataset({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr.splitlines()[-1] == (
        "schemas.errors.MissingExtraError: this needs the package 'torch': pip install 'oxe-tools[finetune]'"
    )


@pytest.mark.realdata
def test_real_frames_are_those_of_their_episodes(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"
    convert(catalog.dataset("bridge_dataset"), tmp_path / "out", source=str(source))
    dataset = open_dataset(tmp_path / "out")
    chunk = [i / 5 for i in range(4)]
    frames = torch_dataset(
        tmp_path / "out", view="openvla", split="val", cameras=["primary"], delta_timestamps={"action": chunk}
    )
    shown = [dataset.episode(i, view="openvla") for i in range(len(dataset))]
    shown = [episode for episode in shown if episode.split == "val"]
    assert len(frames) == sum(map(len, shown))
    row = 0
    for episode in shown:
        for t in range(len(episode)):
            item = frames[row]
            inside = min(4, len(episode) - t)
            np.testing.assert_array_equal(item["action"][:inside], episode.action[t : t + inside])
            assert item["action_is_pad"].tolist() == [False] * inside + [True] * (4 - inside)
            assert item["task"] == episode.instruction
            assert close(item[PRIMARY], episode.images["image_0"][t])
            row += 1
