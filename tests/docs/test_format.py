"""docs/format.md describes the dataset so well that its own code, which knows none of ours, reads it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.arrow import SCHEMA_VERSION
from schemas.store import Dataset
from tests.docs.toy import ROOT, blocks

PAGE = "docs/format.md"
OURS = {"schemas", "stats", "pipelines", "finetune", "oxe_tools"}
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def run(code: str, folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """Run a block of the page alone, from a folder outside the repository: what it prints and which packages it imported."""
    script = folder / "block.py"
    script.write_text(code)
    command = [sys.executable, "-I", "-c", RUN, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


def block(first_words: str) -> str:
    found = [text for text in blocks(PAGE, "python") if first_words in text]
    assert len(found) == 1, f"{PAGE} has {len(found)} blocks with {first_words!r}"
    return found[0]


@pytest.mark.parametrize(("episode", "step"), [(0, 0), (0, 89), (0, 3), (1, 40), (2, 6)])
def test_the_independent_reader_reads_what_open_dataset_reads(
    converted: Dataset, tmp_path: Path, episode: int, step: int
) -> None:
    reader = block("without its tools")
    printed, imported = run(reader, tmp_path, str(converted.path), str(episode), str(step), "front")
    found = json.loads(printed)
    ours = converted.episode(episode)
    assert found["ids"] == [converted.episode(i).id for i in range(len(converted))]
    assert found["dims"] == [dim.name for dim in ours.action_space.dims]
    assert np.array_equal(np.float32(found["actions"]), ours.action)
    image = converted.frame(episode, step, ["front"])["front"]
    assert found["image"] == (image and {"bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()})
    assert (image is None) == (step % 10 == 3)
    assert not imported & OURS


def test_the_independent_reader_has_60_lines_and_imports_only_numpy_and_pyarrow() -> None:
    reader = block("without its tools")
    assert len(reader.splitlines()) <= 60
    imported = {match[1] for match in re.finditer(r"^(?:import|from) (\w+)", reader, re.MULTILINE)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "pyarrow"}


def test_the_content_hash_can_be_recomputed_from_its_description(converted: Dataset, tmp_path: Path) -> None:
    printed, imported = run(block("def content_hash"), tmp_path, str(converted.path))
    assert printed.splitlines() == [f"{converted.episode(i).id} True" for i in range(len(converted))]
    assert not imported & OURS


def test_every_reason_that_the_code_counts_is_on_the_page_and_no_other() -> None:
    code = "".join(
        path.read_text() for part in ("schemas", "pipelines") for path in sorted((ROOT / part).rglob("*.py"))
    )
    words = {
        word for word in re.findall(r'reason(?:: str)? ?= ?f?"([a-z0-9_{}]+)"', code) if word != "non_finite_{name}"
    }
    words |= {"non_finite_action", "non_finite_state", "zero_steps"}
    text = (ROOT / PAGE).read_text()
    section = text[text.index("### Reasons") : text.index("## Content hash")]
    table = {
        word for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    prose = section[section.index("Not counted") :]
    assert table | {word for word in re.findall(r"`([a-z]+_[a-z]+)`", prose) if word != "dataset_info"} == words


def test_every_column_and_every_key_is_on_the_page(converted: Dataset) -> None:
    text = (ROOT / PAGE).read_text()
    schema = converted.columns.schema()
    named = {re.sub(r"^(observation\.images|observation\.depth|action|raw)\..*", r"\1.", name) for name in schema.names}
    for name in named:
        assert f"`{name}" in text, name
    keys = {*converted.manifest, *converted.manifest["columns"], *converted.manifest["files"][0]}
    keys |= {*converted.manifest["source"], *converted.manifest["options"], *converted.manifest["balance"]}
    keys |= {key for name in ("cameras", "raw", "views") for key in converted.manifest["columns"][name][0]}
    keys |= {key for field in schema for key in json.loads((field.metadata or {}).get(b"oxe", b"{}"))}
    run_log = json.loads((converted.path / "meta/runs.jsonl").read_text())
    for key in (keys | {*run_log}) - {"command"}:
        assert f"`{key}`" in text, key
    assert f"`schema_version` is {SCHEMA_VERSION}" in text


@pytest.mark.parametrize("library", ["polars", "duckdb", "datasets"])
def test_the_snippets_for_other_programs_run(converted: Dataset, tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    code = next(text for text in blocks(PAGE, "python") if re.match(rf"(import|from) {library}\b", text))
    (tmp_path / "kitchen").symlink_to(converted.path)
    printed, imported = run(
        f"import os; os.environ['HF_HOME'] = {str(tmp_path)!r}\n" + code.replace("images.image", "images.front"),
        tmp_path,
    )
    assert printed
    assert not imported & OURS
