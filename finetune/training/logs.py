"""The log of a run: one JSON object for each line, and TensorBoard if it is wanted."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.errors import MissingExtraError

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class Log:
    """Writes what happened at a step; each entry is on the disk's way when the call returns."""

    def __init__(self, out: Path, *, step: int, tensorboard: bool) -> None:
        """Go on at `step`: what a killed run wrote beyond it is taken away, since it will happen again."""
        path = out / LOG
        kept = [line for line in lines(path) if line["step"] <= step]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")
        self._board = _board(out / TENSORBOARD, step) if tensorboard else None

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Write one entry; it has a `step` and a `kind`."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _numbers(entry):
                self._board.add_scalar(f"{entry['kind']}/{name}", value, entry["step"])

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """Read a log; a line that was cut off when the process was killed is left out."""
    out = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            out.append(json.loads(line))
        except ValueError:
            break
    return out


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an import of seconds, for who wants it
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", extra="finetune") from error
    return SummaryWriter(str(folder), purge_step=step + 1)


def _numbers(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{key}/")
        elif isinstance(value, int | float) and key != "step":
            yield f"{before}{key}", float(value)
