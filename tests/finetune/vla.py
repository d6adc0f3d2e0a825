"""The reference checkpoint and what the original computes with it."""

import gzip
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.source import Array

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402 - only where torch is

DATA = Path(__file__).parent.parent / "data/vla"
BASE = DATA / "base"
META = json.loads((DATA / "io_base/meta.json").read_text())
PROMPTS, INSTRUCTIONS, KEYS = META["prompts"], META["instructions"], META["unnorm_keys"]
ATOL = 1e-4


@cache
def reference() -> dict[str, Array]:
    with np.load(DATA / "io_base/reference.npz") as file:
        return dict(file)


def image(i: int) -> Image.Image:
    with Image.open(DATA / f"io_base/image{i}.png") as file:
        file.load()
        return file


def tensors_of_7b() -> dict[str, list[int]]:
    return dict(json.loads(gzip.decompress((DATA / "openvla7b_state_dict.json.gz").read_bytes())))


@cache
def model(**told: Any) -> OpenVLAForActionPrediction:
    """Return the reference model; tests share it and must not change it."""
    return OpenVLAForActionPrediction.from_pretrained(BASE, **told)


def changed(tmp_path: Path, **config: Any) -> Path:
    """Copy the checkpoint and change keys of its config.json; None takes a key out."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(BASE, folder)
    told = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    return folder


def close(found: Any, expected: Any, *, atol: float = ATOL) -> None:
    found = found.detach().float().numpy() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)
