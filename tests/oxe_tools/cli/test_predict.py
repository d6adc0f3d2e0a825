"""`oxe predict` prints the action of the original code, or an error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oxe_tools.cli.main import main
from tests.finetune.vla import BASE, DATA, INSTRUCTIONS, KEYS, image, model, reference

pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.images import as_evaluated


def predict(*more: str, i: int = 1, **instead: str) -> None:
    told = {
        "model": str(BASE),
        "image": str(DATA / f"io_base/image{i}.png"),
        "instruction": INSTRUCTIONS[i],
        "unnorm-key": KEYS[i],
    } | {name.replace("_", "-"): value for name, value in instead.items()}
    main(["predict", *(word for name, value in told.items() for word in (f"--{name}", value)), *more])


def printed(capsys: pytest.CaptureFixture[str], *more: str, i: int = 1, **instead: str) -> dict[str, list[float]]:
    with pytest.raises(SystemExit) as end:
        predict(*more, "--json", i=i, **instead)
    assert end.value.code == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("i", range(4))
def test_action_and_tokens_are_those_of_the_original(i: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, i=i)
    assert found["action"] == reference()[f"action_{i}"].tolist()
    assert found["token_ids"] == reference()[f"generated_ids_{i}"][0, -7:].tolist()


def test_it_is_printed_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"action: {' '.join(f'{x:.4g}' for x in reference()['action_1'])}"
    assert out[1] == f"token ids: {' '.join(map(str, reference()['generated_ids_1'][0, -7:]))}"


def test_the_crop_is_that_of_the_evaluations(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "--center-crop")
    expected = model().predict_action(as_evaluated(image(1)), INSTRUCTIONS[1], KEYS[1])
    assert found["action"] == expected.tolist()


def test_bfloat16_and_a_processor_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(BASE, bare)
    (bare / "tokenizer.json").unlink()
    found = printed(capsys, i=1, model=str(bare), processor=str(BASE))
    np.testing.assert_array_equal(found["action"], reference()["action_1"])
    assert len(printed(capsys, "--dtype", "bfloat16")["action"]) == 7


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        ({"unnorm_key": "widowx_bridge"}, "no statistics for 'widowx_bridge'; did you mean 'tiny_bridge'?"),
        ({"instruction": ""}, "the instruction is empty"),
        ({"image": "nowhere.png"}, "nowhere.png: no such image"),
        ({"image": str(BASE / "config.json")}, "not an image of a known format"),
        ({"model": "nowhere"}, "nowhere: no such folder"),
        ({"device": "quantum"}, "--device quantum"),
        ({"processor": str(DATA / "io_base")}, "no tokenizer"),
    ],
)
def test_what_is_wrong_is_one_message(
    instead: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        predict(**instead)
    assert end.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1]
    assert told[-1].startswith("oxe: ")


def test_a_second_image_or_one_of_another_mode_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in [
        (["--image", str(DATA / "io_base/image0.png")], "an observation has 2 images, the model was trained with 1"),
    ]:
        with pytest.raises(SystemExit):
            predict(*more)
        assert message in capsys.readouterr().err
    Image.new("L", (9, 9)).save(tmp_path / "grey.png")
    with pytest.raises(SystemExit):
        predict(image=str(tmp_path / "grey.png"))
    assert "image of mode L, 9 x 9" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tiff"])
def test_an_image_that_its_exif_data_turn_is_refused_unless_they_are_ignored(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    for orientation in (1, 8):
        exif[0x0112] = orientation
        image(1).save(tmp_path / f"{orientation}.{form}", exif=exif)
    with pytest.raises(SystemExit) as end:
        predict(image=str(tmp_path / f"8.{form}"))
    assert (end.value.code, "orientation 8" in capsys.readouterr().err) == (2, True)
    if form == "png":  # the other formats change pixels
        upright = printed(capsys, image=str(tmp_path / f"1.{form}"))
        assert printed(capsys, "--ignore-exif", image=str(tmp_path / f"8.{form}")) == upright
