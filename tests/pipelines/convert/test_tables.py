"""Tables of many episodes are drafted, converted in several shards, verified and exported."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.readers import reader
from pipelines.readers.registry import open_source
from schemas.store.dataset import open_dataset
from tests.pipelines.readers.buffers import LENGTHS, ROWS, make_buffer, write_buffer
from tests.pipelines.readers.reading import ARM
from tests.pipelines.toy import oxe

SPEC = f"""
name       = "toy"
control_hz = 10
id         = "episode_path"
{ARM}
[action]
joints = "actions"
"""


def declare(folder: Path, source: str) -> Path:
    (folder / "toy.toml").write_text(f"source = {source}\n{SPEC}")
    return folder / "toy.toml"


def test_a_buffer_is_converted_in_several_shards_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_buffer(tmp_path / "source" / "lift.hdf5", flags=["terminals", "timeouts"], ends=[5, 10, 20, 35])
    monkeypatch.setattr(reader, "MIN_SHARD", 1000)
    spec = declare(tmp_path, '{ format = "hdf5", episode_flags = ["terminals", "timeouts"] }')
    done = oxe("convert", spec, "--source", tmp_path / "source", "--out", tmp_path / "out")
    assert done.code == 1  # the rows after the last flag
    manifest = json.loads((tmp_path / "out/meta/manifest.json").read_text())
    assert (manifest["balance"]["kept"], manifest["balance"]["quarantined"]) == (4, {"undeclared_record": 1})
    assert len(manifest["files"]) > 1
    assert oxe("verify", tmp_path / "out").code == 0
    dataset = open_dataset(tmp_path / "out")
    assert [dataset.episode(i).id for i in range(4)] == [f"lift.hdf5/episode_{i}" for i in range(4)]
    actions = np.concatenate([dataset.episode(i).action for i in range(4)])
    assert np.array_equal(actions, make_buffer()["actions"][:35])


def test_a_declaration_without_the_key_is_refused_with_exit_code_2(tmp_path: Path) -> None:
    write_buffer(tmp_path / "source" / "lift.hdf5", flags=["dones"])
    spec = declare(tmp_path, '{ format = "hdf5", episodes = "/" }')
    done = oxe("convert", spec, "--source", tmp_path / "source", "--out", tmp_path / "out")
    assert (done.code, 'declare source.episode_flags = ["dones"]' in done.err) == (2, True)


def test_a_draft_of_a_table_has_the_key(tmp_path: Path) -> None:
    columns = {"action": np.zeros((ROWS, 2)).tolist(), "traj_id": np.repeat([1, 2, 3], LENGTHS)}
    (tmp_path / "source").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "source" / "steps.parquet")
    done = oxe("inspect", tmp_path / "source", "--draft", tmp_path / "draft.toml")
    assert (done.code, "3 episodes" in done.out) == (0, True)
    assert 'episode_column = "traj_id"' in (tmp_path / "draft.toml").read_text()
    assert sum(part.count for part in open_source(str(tmp_path / "source")).files()["train"]) == 3
