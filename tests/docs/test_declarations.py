"""docs/declarations.md and its reference name every key, word and op, and their examples convert recordings."""

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
from schemas.declarations.formats import BUILT_IN, PluginSource, RldsSource, SourceSpec
from schemas.declarations.robots import RecordedSpec, VectorSpec
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

GUIDE = "docs/declarations.md"
EMBODIMENTS, EXPRESSIONS, VIEWS = (f"docs/reference/{name}.md" for name in ("embodiments", "expressions", "views"))
EXAMPLES = [text for page in (GUIDE, EMBODIMENTS) for text in blocks(page, "toml") if text.startswith("name")]


def test_the_example_has_ten_lines_and_is_that_of_the_tutorial() -> None:
    assert len(EXAMPLES[0].splitlines()) == 10
    assert EXAMPLES[0] in blocks("docs/add-a-dataset.md", "toml")


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
    (view,) = (text for text in blocks(VIEWS, "toml") if text.startswith("[views.openvla]"))
    assert view in (ROOT / "schemas/datasets/bridge_dataset.toml").read_text()


PAGES: dict[type[BaseModel], str] = {  # the page that explains the keys of each table
    DatasetSpec: GUIDE,
    Derived: GUIDE,
    SuccessSpec: GUIDE,
    SizeSpec: GUIDE,
    CameraSpec: GUIDE,
    DepthSpec: GUIDE,
    FilterSpec: GUIDE,
    EmbodimentSpec: EMBODIMENTS,
    SpaceSpec: EMBODIMENTS,
    Part: EMBODIMENTS,
    RecordedSpec: EMBODIMENTS,
    VectorSpec: EMBODIMENTS,
    ViewSpec: VIEWS,
    PluginSource: "docs/sources.md",
    **{model: f"docs/sources/{name}.md" for name, model in BUILT_IN.items() if name != "rlds"},
}


@pytest.mark.parametrize("model", PAGES)
def test_every_key_is_on_its_page(model: type[BaseModel]) -> None:
    common = SourceSpec.model_fields if issubclass(model, SourceSpec) else {}
    text = (ROOT / PAGES[model]).read_text()
    for key in model.model_fields.keys() - common.keys():
        assert re.search(rf"`{key}`|[{{,] {key} = ", text), f"{model.__name__}.{key}"


def test_the_keys_that_all_sources_have_are_in_the_guide() -> None:
    for key in SourceSpec.model_fields:
        assert f"`{key}`" in (ROOT / GUIDE).read_text()
    assert RldsSource.model_fields.keys() == SourceSpec.model_fields.keys()


def test_every_word_of_the_vocabulary_is_in_its_table_for_its_key() -> None:
    text = (ROOT / EMBODIMENTS).read_text()
    rows = re.findall(r"^\| (.*?) \| (.*?) \| .*\|$", text[text.index("## Vocabulary") :], re.MULTILINE)
    listed = {(key, word) for words, keys in rows for key in _quoted(keys) for word in _quoted(words)}
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
    assert {pair for pair in listed if pair[0] in kinds} == known


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_grammar_on_the_page_is_the_parsers() -> None:
    (grammar,) = (text for text in blocks(EXPRESSIONS, "text") if text.startswith("expression"))
    of_parser = inspect.getdoc(expr) or ""
    for rule in grammar.splitlines():
        assert rule in of_parser


def test_every_op_has_the_first_line_of_its_docstring_on_the_page() -> None:
    rows = [_row(name, function) for ops in (ARRAY_OPS, STEP_OPS, DECODERS) for name, function in ops.items()]
    text = (ROOT / EXPRESSIONS).read_text()
    table = re.findall(r"^\| `\w+(?:\([^)]*\))?` \| [A-Z].*\.(?: .*)? \|$", text, re.MULTILINE)
    assert table == rows, "the tables of ops should be:\n" + "\n".join(rows)


def _row(name: str, function: object) -> str:
    parameters = list(inspect.signature(function).parameters.values())[1:]  # type: ignore[arg-type]
    words = [str(p).split(":")[0] if p.default is p.empty else f"[{p.name}]" for p in parameters]
    usage = f"({', '.join(words)})" if parameters else ""
    sentence = (inspect.getdoc(function) or "").splitlines()[0].replace("|", "\\|")
    return f"| `{name}{usage}` | {sentence} |"
