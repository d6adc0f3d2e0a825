"""Every source format is converted, exported as RLDS and as LeRobot, and read back: the episodes stay the same."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.convert.convert import convert
from schemas.declarations import catalog
from schemas.episode import Episode
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.readers.writers import EPISODES, WRITERS
from tests.pipelines.toy import oxe, write_spec

pytest.importorskip("av", reason="videos are the extra 'lerobot'")
EXPORTS = {"rlds": ("rlds",), "images": ("lerobot", "--video", "none"), "older": ("lerobot", "--version", "2.1")}


def unified(folder: Path, form: str) -> Dataset:
    """Convert a source of one format with the toy's declaration, which fits all of them."""
    told = WRITERS[form](folder / "source")
    spec = catalog.dataset(str(write_spec(folder))).model_copy(update={"source": told})
    report = convert(spec, folder / "unified", source=str(folder / "source"))
    assert (report.kept, report.quarantined) == (len(EPISODES), {})
    return open_dataset(folder / "unified")


def essence(episode: Episode) -> tuple[object, ...]:
    """Return everything that no format may change: numbers bit for bit, texts, flags."""
    assert episode.state is not None
    numbers = episode.action.tobytes(), episode.state.tobytes(), np.asarray(episode.raw["observation.torque"]).tobytes()
    return (*numbers, episode.instructions, len(episode), bool(episode.is_first is None or episode.is_first[0]))


@pytest.fixture(params=WRITERS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    return unified(tmp_path, request.param)


def test_every_format_gives_the_numbers_that_were_written(dataset: Dataset) -> None:
    assert oxe("verify", dataset.path).code == 0
    for made, episode in zip(EPISODES, dataset, strict=True):
        assert episode.state is not None
        assert np.array_equal(episode.action, np.asarray(made["action"]))
        assert np.array_equal(episode.state, np.asarray(made["observation.state"]))
        assert np.array_equal(episode.raw["observation.torque"], np.asarray(made["observation.torque"]))
        assert [bytes(image) for image in episode.images["image"] if image] == list(made["observation.image"])
        assert episode.instruction == bytes(made["language_instruction"][0]).decode()


@pytest.mark.parametrize("export", EXPORTS)
def test_every_format_survives_the_way_through_another_and_verify_says_so(dataset: Dataset, export: str) -> None:
    out, back = dataset.path.parent / "out", dataset.path.parent / "back"
    form, *more = EXPORTS[export]
    assert oxe("export", form, dataset.path, "--out", out, *more).code == 0
    verified = oxe("verify", out, "--json")
    assert verified.json()["first"] == []
    assert oxe("convert", out, "--out", back).code == 0
    assert oxe("verify", back).code == 0
    again = open_dataset(back)
    assert [essence(episode) for episode in again] == [essence(episode) for episode in dataset]
    if "none" in more or form == "rlds":
        images = [list(episode.images["image"]) for episode in dataset]
        leaf = again.cameras[0]
        assert [list(episode.images[leaf]) for episode in again] == images
