"""Recognizes checkpoints of OpenVLA-OFT: ours by `oft.json`, those in the original layout by the files of their heads.

The original layout records neither the chunk nor the normalization. Both follow from the numbers of an action and of a
proprio, or the user states them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.models import checkpoint, components
from finetune.models.action_statistics import ActionStatistics
from finetune.models.components import ACTION, NOISY, PROPRIO, Component, OFTCheckpoint
from finetune.models.oft import Head, OFTSettings
from finetune.models.weights import checked_digest
from schemas.errors import CheckpointError, UsageError
from stats.norm import Method

SETTINGS = "oft.json"
LAYOUTS: Mapping[tuple[int, int], tuple[int, Method]] = {  # numbers of an action and of a proprio -> chunk and method
    (7, 8): (8, "bounds_q99"),  # LIBERO
    (14, 14): (25, "bounds"),  # ALOHA
    (7, 7): (5, "bounds_q99"),  # Bridge
}
CAMERAS = {(7, 8): 2, (14, 14): 3, (7, 7): 1}  # images of the original's observations
WANTED = (*checkpoint.WANTED, "*.pt")
ADAPTER = "lora_adapter"  # the folder with the adapters of OFT, beside or without merged weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What the user states about a checkpoint in the original layout; None: nothing."""

    head: Head | None = None
    chunk: int | None = None
    normalize: Method | None = None


def silent(_: str) -> None:
    """Ignore a note."""


def check_parts(folder: Path, base: Any, *, say: Callable[[str], object] = silent) -> None:
    """Check that a folder has weights, or that `base` names another folder with them.

    OFT stores its adapters beside the weights into which they are merged; `say` gets a note that they are not used.
    """
    has_weights = checkpoint.has_weights(folder)
    if base is not None and has_weights:
        raise UsageError(f"{folder}: has its own weights, so no base can be named: leave out --base (base=)")
    if base is None and not has_weights and components.find(folder, ACTION) is not None:
        raise CheckpointError(
            f"{folder}: contains a head, but no weights of the model: name their folder with --base (base=)"
        )
    if base is None and (folder / ADAPTER).is_dir():
        say(f"{folder / ADAPTER}: not used: these adapters are already merged into the weights of {folder}")


def unmerged_adapter(folder: Path, base: Path, merged: Sequence[str]) -> Path | None:
    """Return the folder of adapters that are beside heads and not merged into the weights of `base`; None without any.

    `merged` are the digests of the adapters that are merged.
    """
    path = folder / ADAPTER / "adapter_model.safetensors"
    if folder == base or not path.exists() or checked_digest([path]) in merged:
        return None
    return path.parent


def recognized(folder: Path, norm_stats: Any, stated: Stated) -> OFTCheckpoint | None:
    """Return what makes a checkpoint OFT; None if it is the base model.

    Raises CheckpointError if a file is missing, damaged or contradicts another, and UsageError if what is `stated` is
    wrong or missing.
    """
    if stated.chunk is not None and stated.chunk < 1:
        raise UsageError(f"chunk {stated.chunk}: must be at least 1 action")
    paths = {name: path for name in components.NAMES if (path := components.find(folder, name)) is not None}
    own = folder / SETTINGS
    if own.exists():
        settings = OFTSettings.of(checkpoint.read_json(own), where=str(own))
        _check_agrees(settings, stated, where=str(own))
    elif ACTION not in paths and stated.head is None:
        _check_base(folder, paths, stated)
        return None
    parts = {name: components.read(path) for name, path in paths.items()}
    if not own.exists():
        settings = _original(
            folder, parts, statistics=ActionStatistics.of(norm_stats, where=str(folder)), stated=stated
        )
    if settings.head == "diffusion" and NOISY not in parts:
        raise CheckpointError(
            f"{folder}: a diffusion head, but no {components.file_name(NOISY, 'STEP')}: copy it to this folder"
        )
    return OFTCheckpoint(settings, parts)


def check_images(folder: Path, count: int, stated: Stated) -> None:
    """Raise UsageError if an observation of `count` images does not fit a checkpoint, without reading its weights."""
    path = folder / SETTINGS
    if path.exists():
        check_count(OFTSettings.of(checkpoint.read_json(path), where=str(path)), count, where=str(path))
    elif stated.head is None and components.find(folder, ACTION) is None:
        check_count(None, count, where=str(folder))


def check_count(settings: OFTSettings | None, count: int, *, where: str) -> None:
    """Raise UsageError if a model does not take observations of `count` images. None are the settings of the base.

    Any number fits the original layout, which does not record it.
    """
    expected = 1 if settings is None else settings.images
    if expected is None or count == expected:
        return
    steps = "" if settings is None or settings.history == 1 else f" for each of {settings.history} steps"
    cameras = f" ({', '.join(settings.cameras)}{steps})" if settings else ""
    raise UsageError(f"{where}: an observation has {count} images, the model was trained with {expected}{cameras}")


def usual_images(settings: OFTSettings) -> int | None:
    """Return how many images an observation usually has in an original layout; None if it is not known."""
    return CAMERAS.get((len(settings.actions), len(settings.proprio))) if not settings.cameras else None


def check_same(own: OFTSettings, wanted: OFTSettings | None, *, where: str) -> None:
    """Raise UsageError if a model that is OFT predicts otherwise than a recipe wants. Cameras may differ."""
    if wanted is None:
        raise UsageError(f'{where}: the base is OpenVLA-OFT: add [oft] with head = "{own.head}" to the recipe')
    ours, theirs = (
        {
            "head": s.head,
            "chunk": s.chunk,
            "normalization": s.method,
            "numbers of an action": len(s.actions),
            "numbers of a proprio": len(s.proprio),
            "film": s.film,
        }
        for s in (own, wanted)
    )
    for name, value in ours.items():
        if theirs[name] != value:
            raise UsageError(f"{where}: {name} is {theirs[name]}, that of the base is {value}")


def write(model: Any, folder: Path, state: Mapping[str, Tensor], *, is_adapter: bool = False) -> None:
    """Write the components of an OFT model, and `oft.json` unless the original layout says the same."""
    components.save(model, folder, state, is_adapter=is_adapter)
    settings: OFTSettings = model.oft
    known = LAYOUTS.get((len(settings.actions), len(settings.proprio)))
    if settings.cameras or is_adapter or settings.head == "discrete" or known != (settings.chunk, settings.method):
        checkpoint.write_json(folder / SETTINGS, settings.to_json())


def _check_agrees(settings: OFTSettings, stated: Stated, *, where: str) -> None:
    stated_and_own = {
        "head": (stated.head, settings.head),
        "chunk": (stated.chunk, settings.chunk),
        "normalize": (stated.normalize, settings.method),
    }
    for name, (wanted, own) in stated_and_own.items():
        if wanted not in (None, own):
            raise UsageError(f"{where}: {name} is {own}, got {wanted}: this checkpoint states it; leave it out")


def _check_base(folder: Path, paths: Mapping[str, Path], stated: Stated) -> None:
    """Raise an error if a folder without a head was meant to be OFT."""
    if paths:
        raise CheckpointError(
            f"{folder}: contains {next(iter(paths.values())).name}, but no {components.file_name(ACTION, 'STEP')}: "
            "copy it to this folder, or state that actions are tokens with --head discrete (head='discrete')"
        )
    if (stated.chunk, stated.normalize) != (None, None):
        raise UsageError(
            f"{folder}: a chunk or a normalization can be stated only for OpenVLA-OFT, and the folder has no "
            f"{components.file_name(ACTION, 'STEP')}; if it predicts chunks of tokens, add --head discrete "
            "(head='discrete')"
        )


def _original(
    folder: Path, parts: Mapping[str, Component], *, statistics: ActionStatistics, stated: Stated
) -> OFTSettings:
    """Find the settings of a checkpoint in the original layout."""
    head: Head = stated.head or _kind(parts[ACTION])
    if head != "discrete" and ACTION not in parts:
        raise CheckpointError(f"{folder}: no {components.file_name(ACTION, 'STEP')}: copy it to this folder")
    if head != "discrete" and head != _kind(parts[ACTION]):
        raise UsageError(f"{parts[ACTION].path}: a head of kind {_kind(parts[ACTION])}, got head {head}")
    width = _width(parts[ACTION], "fc2.weight", 0) if head != "discrete" else None
    numbers = _size({len(norm.names) for norm in statistics.known.values()}, width, what="actions", folder=folder)
    width = _width(parts[PROPRIO], "fc1.weight", 1) if PROPRIO in parts else None
    proprios = {len(n.names) for key, n in statistics.proprios.items() if len(statistics.known[key].names) == numbers}
    proprio = _size(proprios, width, what="proprios", folder=folder)
    chunk, method = LAYOUTS.get((numbers, proprio), (None, None))
    chunk, method = stated.chunk or chunk, stated.normalize or method
    if chunk is None or method is None or not numbers:
        raise UsageError(
            f"{folder}: does not record its chunk and normalization, and those of actions of {numbers} and proprios of "
            f"{proprio} numbers are not known: state them with --chunk N and --normalize bounds_q99 or bounds (chunk=, "
            "normalize=)"
        )
    return OFTSettings(
        head=head,
        chunk=chunk,
        method=method,
        actions=_numbered(numbers),
        proprio=_numbered(proprio) if PROPRIO in parts else (),
        film=components.VISION in parts or components.FILM in parts,
        film_pads=True,
    )


def _kind(head: Component) -> Head:
    return "diffusion" if any(key.startswith("noise_predictor.") for key in head.tensors) else "l1"


def _size(sizes: set[int], own: int | None, *, what: str, folder: Path) -> int:
    """Return the size of a vector: that of the component if there is one, or the only one of the statistics, or 0.

    Raises CheckpointError if there are several, or if the component's is not among them.
    """
    listed = " or ".join(map(str, sorted(sizes)))
    if own is not None and sizes and own not in sizes:
        raise CheckpointError(
            f"{folder}: the head or projector is for {what} of {own} numbers, those of the statistics have {listed}: "
            "the files are from different trainings"
        )
    if own is None and len(sizes) > 1:
        raise CheckpointError(f"{folder}: its statistics are of {what} of {listed} numbers; keep those of one size")
    return own if own is not None else next(iter(sizes), 0)


def _width(component: Component, suffix: str, dim: int) -> int:
    """Return the size of a dimension of the tensor whose name ends with `suffix`."""
    for key, value in component.tensors.items():
        if key.endswith(suffix) and value.ndim > dim:
            return int(value.shape[dim])
    raise CheckpointError(f"{component.path}: no tensor {suffix}: not a component of OpenVLA-OFT")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
