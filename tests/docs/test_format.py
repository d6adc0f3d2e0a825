"""docs/format.md and its reference are enough to read a dataset: their code runs without our packages."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from crc32c import crc32c

from schemas.store.dataset import Dataset
from schemas.store.manifest import SCHEMA_VERSION
from tests.docs.toy import ROOT, blocks

PAGE = "docs/format.md"
HASH, INDEX = "docs/reference/content-hash.md", "docs/reference/index-files.md"
META, REASONS = "docs/reference/meta.md", "docs/reference/reasons.md"
OURS = {"schemas", "stats", "pipelines", "finetune", "oxe_tools"}
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def run(code: str, folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """Run a block of the page alone, outside the repository: what it prints, and which packages it imported."""
    script = folder / "block.py"
    script.write_text(code)
    command = [sys.executable, "-I", "-c", RUN, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


def only_block(page: str) -> str:
    (code,) = blocks(page, "python")
    return code


@pytest.mark.parametrize(("episode", "step"), [(0, 0), (0, 89), (0, 3), (1, 40), (2, 6)])
def test_the_independent_reader_reads_what_open_dataset_reads(
    converted: Dataset, tmp_path: Path, episode: int, step: int
) -> None:
    reader = blocks(INDEX, "python")[1]
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
    reader = blocks(INDEX, "python")[1]
    assert len(reader.splitlines()) <= 60
    imported = {match[1] for match in re.finditer(r"^(?:import|from) (\w+)", reader, re.MULTILINE)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "pyarrow"}


def test_the_content_hash_can_be_recomputed_from_its_description(converted: Dataset, tmp_path: Path) -> None:
    printed, imported = run(only_block(HASH), tmp_path, str(converted.path))
    assert printed.splitlines() == [f"{converted.episode(i).id} True" for i in range(len(converted))]
    assert not imported & OURS


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_episode_is_found_by_reading_only_its_range(converted: Dataset, tmp_path: Path, number: int) -> None:
    printed, imported = run(blocks(INDEX, "python")[0], tmp_path, str(converted.path), str(number))
    path, row, length = converted.where(number)
    split = converted.episode(number).split
    assert printed == f"{Path(path).name} {split} {row} {length}\nTrue\n"
    assert not imported & (OURS | {"pyarrow"})


def test_a_damaged_episode_index_is_noticed_by_that_reader(converted: Dataset, tmp_path: Path) -> None:
    shutil.copytree(converted.path, tmp_path / "copy")
    path = tmp_path / "copy/meta/episodes.idx"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError, match="is damaged"):
        run(blocks(INDEX, "python")[0], tmp_path, str(tmp_path / "copy"), "0")


def test_the_checksums_of_the_index_are_of_the_bytes_that_the_page_says(converted: Dataset) -> None:
    data = (converted.path / "data/train-00000-of-00001.parquet").read_bytes()
    content = (converted.path / "index/train-00000-of-00001.idx").read_bytes()
    start = 12 + int.from_bytes(content[8:12], "little")
    header = json.loads(content[12:start])
    entries = np.frombuffer(content, "<u8,<u4,<u4", header["rows"] * len(header["columns"]), start).tolist()
    assert all(crc32c(data[at : at + size]) == crc for at, size, crc in entries)
    metadata = pq.read_metadata(converted.path / "data/train-00000-of-00001.parquet")
    sums = np.frombuffer(content, "<u4", header["groups"] * len(header["chunks"]), start + 16 * len(entries)).tolist()
    for group in range(metadata.num_row_groups):
        for chunk in map(metadata.row_group(group).column, range(metadata.num_columns)):
            if not chunk.path_in_schema.startswith(tuple(f"{name}." for name in header["columns"])):
                at = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
                assert header["chunks"][-len(sums) % len(header["chunks"])] == chunk.path_in_schema
                assert sums.pop(0) == crc32c(data[at : at + chunk.total_compressed_size])
    assert not sums
    footer = int.from_bytes(data[-8:-4], "little") + 8
    assert int.from_bytes(content[-4:], "little") == crc32c(data[-footer:])


def reasons() -> set[str]:
    """Find the words that the code gives as a SourceError's reason: by name, by default, or through a helper."""
    trees = [ast.parse(path.read_text()) for part in ("schemas", "pipelines") for path in (ROOT / part).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    helpers = {
        node.name: [a.arg for a in node.args.args if a.arg != "self"].index("reason")
        for node in nodes
        if isinstance(node, ast.FunctionDef) and "reason" in [a.arg for a in node.args.args]
    }
    values: list[ast.expr | None] = [
        node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "reason"
    ]
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            values += [d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if a.arg == "reason"]
        if isinstance(node, ast.Call):
            place = helpers.get(getattr(node.func, "attr", getattr(node.func, "id", "")))
            values += node.args[place : place + 1] if place is not None else []
    words = {ast.unparse(v).removeprefix("f").strip("'") for v in values if isinstance(v, ast.Constant | ast.JoinedStr)}
    return words - {"non_finite_{name}"} | {"non_finite_action", "non_finite_state", "zero_steps"}


def test_every_reason_that_the_code_counts_is_on_the_page_and_no_other() -> None:
    text = (ROOT / REASONS).read_text()
    counted, _, not_counted = text[text.index("## Dropped") :].partition("## Not counted")
    rows = re.findall(r"^\| (`.*?) \|", counted, re.MULTILINE)
    listed = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert listed | set(re.findall(r"`([a-z_]+)`", not_counted)) == reasons()


def test_the_digests_in_the_manifest_are_what_the_page_says(converted: Dataset) -> None:
    content = (converted.path / "meta/manifest.json").read_text()
    manifest = json.loads(content)
    assert manifest["spec_digest"] == hashlib.sha256(json.dumps(manifest["spec"]).encode()).hexdigest()
    stated = manifest.pop("xxh3_128")
    assert stated == xxhash.xxh3_128_hexdigest(json.dumps(manifest, indent=1).encode())
    assert content == json.dumps({**manifest, "xxh3_128": stated}, indent=1) + "\n"
    for name, place in {
        "episodes": "episodes.parquet",
        "episodes_index": "episodes.idx",
        "quarantine": "quarantine.parquet",
    }.items():
        file = converted.path / "meta" / place
        assert manifest[f"{name}_xxh3_128"] == xxhash.xxh3_128_hexdigest(file.read_bytes())


def test_the_files_are_encoded_as_the_page_says(converted: Dataset) -> None:
    metadata = pq.read_metadata(converted.path / "data/train-00000-of-00001.parquet")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [512, 38]
    for chunk in (group.column(i) for group in groups for i in range(metadata.num_columns)):
        if chunk.path_in_schema.startswith(("observation.images.", "observation.depth.")):
            assert (chunk.compression, chunk.is_stats_set) == ("UNCOMPRESSED", False)
            assert set(chunk.encodings) == {"PLAIN", "RLE"}  # RLE: the definition levels
        else:
            scalar = ".list." not in chunk.path_in_schema
            assert (chunk.compression, chunk.is_stats_set) == ("ZSTD", scalar)
            assert scalar or chunk.physical_type == "BYTE_ARRAY" or not chunk.has_dictionary_page


def test_every_column_is_on_the_page_with_the_keys_of_its_metadata(converted: Dataset) -> None:
    text = (ROOT / PAGE).read_text()
    schema = converted.columns.schema()
    named = {re.sub(r"^(observation\.images|observation\.depth|action|raw)\..*", r"\1.", name) for name in schema.names}
    for name in named:
        assert f"`{name}" in text, name
    for key in {key for field in schema for key in json.loads((field.metadata or {}).get(b"oxe", b"{}"))}:
        assert f"`{key}`" in text, key
    assert f"`schema_version` is {SCHEMA_VERSION}" in text


def test_every_key_of_the_files_in_meta_is_in_their_reference(converted: Dataset) -> None:
    text = (ROOT / META).read_text()
    keys = {*converted.manifest, *converted.manifest["columns"], *converted.manifest["files"][0]}
    keys |= {*converted.manifest["source"], *converted.manifest["options"], *converted.manifest["balance"]}
    keys |= {key for name in ("cameras", "raw", "views") for key in converted.manifest["columns"][name][0]}
    run_log = json.loads((converted.path / "meta/runs.jsonl").read_text())
    columns = [pq.read_schema(converted.path / f"meta/{name}.parquet").names for name in ("episodes", "quarantine")]
    keys |= {name for names in columns for name in names if not name.startswith("metadata.")}
    for key in keys | {*run_log}:
        assert f"`{key}`" in text, key
    assert f"| `schema_version` | {SCHEMA_VERSION} |" in text


@pytest.mark.parametrize("page", [META, REASONS])
def test_the_snippets_that_read_the_files_in_meta_run(converted: Dataset, tmp_path: Path, page: str) -> None:
    pytest.importorskip("polars")
    (tmp_path / "kitchen").symlink_to(converted.path)
    printed, imported = run(only_block(page), tmp_path)
    assert printed
    assert not imported & OURS


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


def test_the_snippet_with_to_datasets_prints_names(converted: Dataset, tmp_path: Path) -> None:
    code = next(text for text in blocks(PAGE, "python") if "to_datasets" in text).replace(
        "images.image", "images.front"
    )
    (tmp_path / "kitchen").symlink_to(converted.path)
    ahead = f"import os, sys; os.environ['HF_HOME'] = {str(tmp_path)!r}; sys.path.insert(0, {str(ROOT)!r})\n"
    printed, _ = run(ahead + code, tmp_path)
    assert printed.splitlines()[-1] == str([dim.name for dim in converted.columns.action.dims])
