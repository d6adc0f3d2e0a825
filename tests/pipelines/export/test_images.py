"""Every kind of image that a dataset can contain, exported and opened by the readers of the formats."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.export.images import why_not_rlds
from schemas.codec import decode
from schemas.images import sniff
from schemas.store.dataset import Dataset
from tests.pictures import HEIGHT, WIDTH, pictures
from tests.pipelines.export.makers import IMAGE, converted, info
from tests.pipelines.toy import FIELDS, columns, oxe

STEPS = 3
KINDS = tuple(pictures())
REFUSED = {"jpeg_cmyk": "in CMYK", "jpeg_ycck": "in CMYK", "png_grey_16": "16 bits"} | {
    kind: "with a palette" for kind in KINDS if "palette" in kind
}
RECODED = tuple(kind for kind in REFUSED if kind != "png_grey_16")
CHANNELS = {"png_grey_alpha": 2, "png_grey_alpha_16": 4, "png_rgba": 4, "png_rgba_16": 4}


def dataset(folder: Path, kinds: Sequence[str], *, mixed: dict[int, str] | None = None) -> Dataset:
    """Convert one episode with a camera of each kind; `mixed` names the kind of single steps."""
    field = next(f for f in FIELDS if f.path == IMAGE)
    episode = columns(0, steps=STEPS, image=[pictures(step)["jpeg_rgb"] for step in range(STEPS)])
    fields = list(FIELDS)
    for kind in kinds:
        fields.append(replace(field, path=f"observation.{kind}", shape=(None, None, 3)))
        episode[f"observation.{kind}"] = [pictures(step)[(mixed or {}).get(step, kind)] for step in range(STEPS)]
    return converted(folder, [episode], fields=tuple(fields))


def export(form: str, source: Dataset, out: Path, *more: str) -> Any:
    return oxe("export", form, source.path, "--out", out, *more)


def hugging(out: Path, kind: str) -> list[Image.Image]:
    """Open the images of a camera as `datasets` does for LeRobot."""
    features = pytest.importorskip("datasets")
    table = pa.concat_tables([pq.read_table(file) for file in sorted((out / "data").rglob("*.parquet"))])
    return [features.Image().decode_example(row) for row in table[f"observation.images.{kind}"].to_pylist()]


def tensor(image: Image.Image) -> Any:
    """Return [H, W, C] as torchvision's ToTensor reads an image, which LeRobot uses."""
    pixels = 255 * np.asarray(image) if image.mode == "1" else np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("every"), KINDS)


def test_tensorflow_opens_every_kind_as_we_do(every: Dataset, tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets", reason="the oracle is the extra 'rlds'")
    run = export("rlds", every, tmp_path / "1.0.0")
    assert run.code == 0, run.err
    assert oxe("verify", tmp_path / "1.0.0").code == 0
    (episode,) = tfds.as_numpy(tfds.builder_from_directory(str(tmp_path / "1.0.0")).as_dataset(split="train"))
    for step, values in enumerate(episode["steps"]):
        for kind in KINDS:
            found = values["observation"][kind]
            assert (found.dtype, found.shape[:2]) == (np.uint8, (HEIGHT, WIDTH)), kind
            if kind == "png_grey_16":
                continue  # our loader reads it only as depth
            own = decode(pictures(step)[kind]).astype(int)
            colours = np.broadcast_to(found[..., :3], own.shape)
            assert np.abs(own - colours).max() <= (24 if kind.startswith("jpeg") else 0), kind
            assert np.abs(own - colours).mean() < 2, kind


@pytest.mark.parametrize("kind", REFUSED)
def test_an_image_that_lerobot_misreads_is_refused_with_the_camera_and_the_key(
    every: Dataset, tmp_path: Path, kind: str
) -> None:
    run = export("lerobot", dataset(tmp_path, ["jpeg_rgb", kind]), tmp_path / "out", "--video", "none")
    assert (run.code, run.out) == (2, "")
    assert f"observation.images.{kind}: the first image is a " in run.err
    assert REFUSED[kind] in run.err
    assert ("--images png" in run.err) == (kind in RECODED)
    assert not (tmp_path / "out/meta/info.json").exists()


@pytest.mark.parametrize("version", ["3.0", "2.1"])
def test_lerobot_opens_every_kind_that_is_not_refused_with_the_channels_of_info_json(
    tmp_path: Path, version: str
) -> None:
    kinds = [kind for kind in KINDS if kind not in REFUSED]
    source = dataset(tmp_path, kinds)
    run = export("lerobot", source, tmp_path / "out", "--video", "none", "--version", version)
    assert run.code == 0, run.err
    assert oxe("verify", tmp_path / "out").code == 0
    for kind in kinds:
        channels = CHANNELS.get(kind, 1 if "grey" in kind else 3)
        assert info(tmp_path / "out")["features"][f"observation.images.{kind}"]["shape"] == [HEIGHT, WIDTH, channels]
        for step, image in enumerate(hugging(tmp_path / "out", kind)):
            assert tensor(image).shape == (HEIGHT, WIDTH, channels), kind
            own = decode(pictures(step)[kind])
            colours = tensor(image)[..., : 1 if channels < 3 else 3]
            assert np.abs(own.astype(int) - colours).max() <= (24 if kind.startswith("jpeg") else 0), kind


def test_images_that_lerobot_misreads_are_re_encoded_on_request(tmp_path: Path) -> None:
    source = dataset(tmp_path, ["jpeg_rgb", *RECODED])
    run = export("lerobot", source, tmp_path / "out", "--video", "none", "--images", "png", "--json")
    assert run.code == 0, run.err
    cameras = run.json()["cameras"]
    assert {key.rpartition(".")[2] for key, camera in cameras.items() if "re-encoded" in camera["as"]} == {*RECODED}
    for kind in RECODED:
        assert info(tmp_path / "out")["features"][f"observation.images.{kind}"]["shape"] == [HEIGHT, WIDTH, 3]
        for step, image in enumerate(hugging(tmp_path / "out", kind)):
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), decode(pictures(step)[kind]))
    assert [image.format for image in hugging(tmp_path / "out", "jpeg_rgb")] == ["JPEG"] * STEPS
    assert oxe("verify", tmp_path / "out").code == 0
    again = export("lerobot", source, tmp_path / "out", "--video", "none")
    assert again.code == 2, "another option is another export"


def test_a_video_can_be_made_of_every_kind_with_8_bits(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    kinds = [kind for kind in KINDS if not kind.endswith("_16")]
    source = dataset(tmp_path, kinds)
    run = export("lerobot", source, tmp_path / "out", "--json")
    assert run.code == 0, run.err
    assert {camera["as"] for camera in run.json()["cameras"].values()} == {"h264 video"}
    assert oxe("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("form", "first", "later", "words"),
    [
        ("lerobot", "png_rgb", "png_palette", "step 2 is a PNG with a palette"),
        ("lerobot", "jpeg_rgb", "jpeg_cmyk", "step 2 is a JPEG in CMYK"),
        ("rlds", "jpeg_grey", "jpeg_rgb", "step 2 is colours, but the camera's first image is grey"),
        ("rlds", "png_grey_1", "png_palette", "step 2 is colours, but the camera's first image is grey"),
    ],
)
def test_a_later_image_that_cannot_be_opened_is_refused(
    tmp_path: Path, form: str, first: str, later: str, words: str
) -> None:
    source = dataset(tmp_path, [first], mixed={2: later})
    run = export(form, source, tmp_path / "out/1.0.0", *(["--video", "none"] if form == "lerobot" else []))
    assert run.code == 2
    assert f"observation.images.{first}: episode " in run.err
    assert words in run.err


def test_a_jpeg_with_12_bits_is_not_for_tensorflow() -> None:
    image = bytearray(pictures()["jpeg_rgb"])
    image[image.index(b"\xff\xc0") + 4] = 12
    header = sniff(bytes(image))
    assert (
        why_not_rlds(header, header, is_depth=False)
        == "a JPEG with 12 bits per channel, which TensorFlow cannot decode"
    )


def test_decoded_pictures_are_what_pillow_opens() -> None:
    for kind, data in pictures().items():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.size == (WIDTH, HEIGHT), kind
