from pathlib import Path

import pytest

from pipelines.convert.convert import convert
from pipelines.convert.records import Options
from schemas.declarations import catalog
from schemas.store.dataset import Dataset, open_dataset
from tests.docs.toy import blocks, record


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recordings") / "my_lab" / "1.0.0")


@pytest.fixture(scope="session")
def converted(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Convert what the ten-line example of docs/declarations.md describes, with a materialized view."""
    folder = tmp_path_factory.mktemp("converted")
    (folder / "my_lab.toml").write_text(blocks("docs/declarations.md", "toml")[0])
    spec = catalog.dataset(str(folder / "my_lab.toml"))
    convert(spec, folder / "my_lab", source=str(recordings), options=Options(materialize=("eef_delta",)))
    return open_dataset(folder / "my_lab")
