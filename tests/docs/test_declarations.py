"""docs/declarations.md names every key, word and op, and its examples convert recordings."""

import inspect
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import BaseModel

from pipelines.convert.convert import convert
from pipelines.verify import verify
from schemas import spaces
from schemas.declarations import catalog, expr
from schemas.declarations.actions import Derived
from schemas.declarations.formats import OURS, PluginSource
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.success import SuccessSpec
from schemas.declarations.tables import (
    CameraSpec,
    DepthSpec,
    EmbodimentSpec,
    FilterSpec,
    Part,
    SizeSpec,
    SpaceSpec,
    ViewSpec,
)
from schemas.declarations.vocabulary import ARRAY_OPS, DECODERS, STEP_OPS
from schemas.store.dataset import Dataset, open_dataset
from tests.docs.toy import ROOT, blocks

PAGE = "docs/declarations.md"
SOURCES = "docs/sources.md"
TEXT = (ROOT / PAGE).read_text()
EXAMPLES = [text for text in blocks(PAGE, "toml") if text.startswith("name")]


def test_the_example_has_ten_lines_and_stands_in_the_readme_too() -> None:
    assert len(EXAMPLES[0].splitlines()) == 10
    assert EXAMPLES[0] in blocks("README.md", "toml")


def test_the_example_converts_recordings_into_canonical_units(converted: Dataset, recordings: Path) -> None:
    verification = verify(converted, source=str(recordings))
    assert verification.source == "compared"
    assert verification.first == []
    assert converted.manifest["balance"] == {"source": 4, "kept": 3, "dropped": {"zero_steps": 1}, "quarantined": {}}
    episode = converted.episode(0)
    assert episode.state is not None
    raw = {path: np.asarray(column) for path, column in episode.raw.items() if isinstance(column, np.ndarray)}
    assert np.allclose(episode.state[:, :3], raw["observation.tcp_mm"] / 1000)
    assert np.allclose(episode.state[:, 3:6], np.radians(raw["observation.rpy_deg"]))
    assert np.allclose(episode.state[:, 6], 1 - raw["observation.gripper_closed"])
    assert np.allclose(episode.action[:, 6], 1 - raw["command"][:, 6])
    assert converted.views == ("eef_delta",)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_whole_declaration_on_the_page_converts(number: int, recordings: Path, tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(EXAMPLES[number])
    report = convert(catalog.dataset(str(file)), tmp_path / "out", source=str(recordings))
    assert report.kept == len(open_dataset(tmp_path / "out")) == 3


def test_the_view_on_the_page_is_the_shipped_one() -> None:
    (view,) = (text for text in blocks(PAGE, "toml") if text.startswith("[views.openvla]"))
    assert view in (ROOT / "schemas/datasets/bridge_dataset.toml").read_text()


MODELS = (
    DatasetSpec,
    Derived,
    SuccessSpec,
    *OURS.values(),
    PluginSource,
    SizeSpec,
    CameraSpec,
    DepthSpec,
    FilterSpec,
    EmbodimentSpec,
    SpaceSpec,
    Part,
    ViewSpec,
)


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_on_the_page(model: type[BaseModel]) -> None:
    for key in model.model_fields:
        assert re.search(rf"`{key}`|[{{,] {key} = ", TEXT + (ROOT / SOURCES).read_text()), f"{model.__name__}.{key}"


def test_every_word_of_the_vocabulary_is_in_its_table_for_its_key() -> None:
    rows = re.findall(r"^\| (.*?) \| (.*?) \| .*\|$", TEXT[TEXT.index("### The vocabulary") :], re.MULTILINE)
    told = {(key, word) for words, keys in rows for key in _quoted(keys) for word in _quoted(words)}
    kinds = {
        "unit": spaces.Unit,
        "mode": spaces.Mode,
        "kind": spaces.Kind,
        "frame": spaces.Frame,
        "rotation": spaces.Rotation,
        "gripper": spaces.Gripper,
        "origin": spaces.Origin,
    }
    known = {(key, word) for key, words in kinds.items() for word in get_args(words)}
    assert {pair for pair in told if pair[0] in kinds} == known


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_grammar_on_the_page_is_the_parsers() -> None:
    (grammar,) = (text for text in blocks(PAGE, "text") if text.startswith("expression"))
    of_parser = inspect.getdoc(expr) or ""
    for rule in grammar.splitlines():
        assert rule in of_parser


def test_every_op_has_the_first_line_of_its_docstring_on_the_page() -> None:
    rows = [_row(name, function) for ops in (ARRAY_OPS, STEP_OPS, DECODERS) for name, function in ops.items()]
    table = re.findall(
        r"^\| `\w+(?:\([^)]*\))?` \| [A-Z].*\.(?: .*)? \|$", TEXT[TEXT.index("Array ops") :], re.MULTILINE
    )
    assert table == rows, "the tables of ops should be:\n" + "\n".join(rows)


def _row(name: str, function: object) -> str:
    parameters = list(inspect.signature(function).parameters.values())[1:]  # type: ignore[arg-type]
    words = [str(p).split(":")[0] if p.default is p.empty else f"[{p.name}]" for p in parameters]
    usage = f"({', '.join(words)})" if parameters else ""
    sentence = (inspect.getdoc(function) or "").splitlines()[0].replace("|", "\\|")
    return f"| `{name}{usage}` | {sentence} |"
