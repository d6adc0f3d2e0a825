"""The log of a run: one JSON object in each line, and optionally TensorBoard."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.errors import MissingExtraError
from schemas.files import durable
from schemas.parsing import parse_json

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class Log:
    """Writes the log of a run. Every entry is synced to disk before the next step."""

    def __init__(self, out: Path, *, step: int, tensorboard: bool) -> None:
        """Open the log to continue after `step`. Later entries are removed, because these steps run again."""
        path = out / LOG
        entries = [line for line in lines(path) if line["step"] <= step]
        durable.write(path, "".join(json.dumps(line) + "\n" for line in entries).encode())
        self._file = path.open("a")
        self._board = _board(out / TENSORBOARD, step) if tensorboard else None

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Write one entry, which must have a `step` and a `kind`."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            for name, value in _numbers(entry):
                self._board.add_scalar(f"{entry['kind']}/{name}", value, entry["step"])

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a log. Stops at a line that is incomplete because a run was interrupted."""
    out = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            out.append(parse_json(line))
        except ValueError:
            break
    return out


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional, and takes seconds to import
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", extra="finetune") from error
    return SummaryWriter(str(folder), purge_step=step + 1)


def _numbers(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{key}/")
        elif isinstance(value, int | float) and key != "step":
            yield f"{before}{key}", float(value)
