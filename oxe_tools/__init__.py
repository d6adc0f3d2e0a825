"""Robot demonstrations from many labs in one lossless, checked format; the public Python API."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oxe_tools.api import mixture_loader, torch_dataset, torch_loader
    from oxe_tools.statistics import stats
    from pipelines.convert.in_memory import standardize
    from schemas.episode import Episode
    from schemas.errors import OxeError
    from schemas.spaces import Dim, Space
    from schemas.store.dataset import Dataset, open_dataset
    from stats.formats import load as load_norm_stats
    from stats.norm import NormStats
    from stats.record import Statistics

OURS = ("schemas", "stats", "pipelines", "finetune")
PLACES = {  # public name -> module that defines it; imported when the name is first used
    "Dataset": "schemas.store.dataset:Dataset",
    "Dim": "schemas.spaces:Dim",
    "Episode": "schemas.episode:Episode",
    "NormStats": "stats.norm:NormStats",
    "OxeError": "schemas.errors:OxeError",
    "Space": "schemas.spaces:Space",
    "Statistics": "stats.record:Statistics",
    "load_norm_stats": "stats.formats:load",
    "mixture_loader": "oxe_tools.api:mixture_loader",
    "open_dataset": "schemas.store.dataset:open_dataset",
    "standardize": "pipelines.convert.in_memory:standardize",
    "stats": "oxe_tools.statistics:stats",
    "torch_dataset": "oxe_tools.api:torch_dataset",
    "torch_loader": "oxe_tools.api:torch_loader",
}
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


def _check_neighbours() -> None:
    """Raise ImportError if one of our top-level packages is hidden by a package of another project."""
    home = Path(__file__).resolve().parent.parent
    for name in OURS:
        spec = find_spec(name)
        path = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if path != home / name:
            raise ImportError(
                f"package '{name}' is at {path or 'no regular package'}, expected {home / name}: "
                f"another package of this name hides ours; run in another folder or rename it"
            )


_check_neighbours()

if not TYPE_CHECKING:  # type checkers read the imports above

    def __getattr__(name: str) -> object:
        """Import a public name."""
        if name not in PLACES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        module, _, attribute = PLACES[name].partition(":")
        globals()[name] = getattr(import_module(module), attribute)
        return globals()[name]

    def __dir__() -> list[str]:
        """List all public names, including those that are not imported yet."""
        return sorted({*globals(), *__all__})
