"""Robot demonstrations from many labs in one lossless, declared, checked format. This is the only documented import."""

from importlib.util import find_spec
from pathlib import Path

OURS = ("schemas", "stats", "pipelines", "finetune")


def _check_neighbours() -> None:
    """Refuse to run with somebody else's package under one of our top-level names."""
    home = Path(__file__).resolve().parent.parent
    for name in OURS:
        found = find_spec(name)
        place = Path(found.origin).resolve().parent if found and found.origin else None
        if place != home / name:
            raise ImportError(
                f"'{name}' was found at {place or 'no regular package'}, not at {home / name}: "
                f"another package of that name hides ours; run from another folder or rename it"
            )


_check_neighbours()

from oxe_tools.api import mixture_loader, torch_loader  # noqa: E402
from oxe_tools.frames import torch_dataset  # noqa: E402 - only once the neighbours are known to be ours
from oxe_tools.statistics import stats  # noqa: E402
from pipelines.convert.in_memory import standardize  # noqa: E402
from schemas.episode import Episode  # noqa: E402
from schemas.errors import OxeError  # noqa: E402
from schemas.spaces import Dim, Space  # noqa: E402
from schemas.store.dataset import Dataset, open_dataset  # noqa: E402
from stats.formats import load as load_norm_stats  # noqa: E402
from stats.norm import NormStats  # noqa: E402
from stats.record import Statistics  # noqa: E402

__all__ = [
    "Dataset",
    "Dim",
    "Episode",
    "NormStats",
    "OxeError",
    "Space",
    "Statistics",
    "load_norm_stats",
    "mixture_loader",
    "open_dataset",
    "standardize",
    "stats",
    "torch_dataset",
    "torch_loader",
]
