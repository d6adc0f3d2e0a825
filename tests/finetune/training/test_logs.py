"""The log of a run holds each step once, whatever happened in between."""

import json
from contextlib import closing
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from finetune.training.logs import Log, lines  # noqa: E402 - only where torch is


def written(out: Path, *steps: int, after: int = 0, tensorboard: bool = False) -> None:
    with closing(Log(out, step=after, tensorboard=tensorboard)) as log:
        for step in steps:
            log({"kind": "train", "step": step, "loss": step / 10, "sources": {"one": {"l1": 1.0}}})


def test_what_a_killed_run_wrote_beyond_its_checkpoint_is_not_there_twice(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)
    written(tmp_path, 3, 4, after=2)
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [1, 2, 3, 4]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    written(tmp_path, 3, after=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    written(tmp_path, 1, 2, tensorboard=True)
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, round(event.value, 6)) for event in found.Scalars("train/loss")] == [(1, 0.1), (2, 0.2)]
    assert "train/sources/one/l1" in found.Tags()["scalars"]
