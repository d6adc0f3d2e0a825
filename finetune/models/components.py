"""The files of a checkpoint's heads, projectors and FiLM layers, in the layout of OpenVLA-OFT.

Each is a file of torch, `COMPONENT--STEP_checkpoint.pt`. The names of heads and projectors start with "module.",
because the original trains them with DistributedDataParallel. With FiLM, the whole vision backbone is stored, and its
LoRA adapters are not merged.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from finetune.models.checkpoint import check_shapes
from finetune.models.oft import OFTSettings
from finetune.models.weights import stored_tensors
from schemas.errors import CheckpointError
from schemas.files import durable

ACTION, PROPRIO, NOISY, VISION = "action_head", "proprio_projector", "noisy_action_projector", "vision_backbone"
BASE = "base"  # the weights of the base model, in safetensors files
FILM = "film"  # the FiLM layers alone, beside adapters; the original has no such file
NAMES = (ACTION, PROPRIO, NOISY, VISION, FILM)
WRAPPED, LATEST = "module.", "latest"
STORED_BLOCK, OWN_BLOCK = re.compile(r"(\bblocks\.\d+\.)block\."), re.compile(r"(\bblocks\.\d+\.)(?!scale\.|shift\.)")
FILM_LAYER = re.compile(r"\bblocks\.\d+\.(scale|shift)\.")
TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LARGEST_ALPHA = 16  # the original adapts with alpha = min(rank, 16)


@dataclass(frozen=True, slots=True)
class StoredForm:
    """The step in the name of a component's file, and the dtypes of its tensors."""

    step: str = LATEST
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Component:
    """A component's tensors by their names in the module, and the file from which they were read."""

    path: Path
    tensors: Mapping[str, Tensor]

    @property
    def stored(self) -> StoredForm:
        """How the file stores the component."""
        step = self.path.name.partition("--")[2].partition("_checkpoint")[0]
        return StoredForm(step, dtypes(self.tensors))


@dataclass(frozen=True, slots=True)
class OFTCheckpoint:
    """The settings of a checkpoint of OpenVLA-OFT, and its components by name."""

    settings: OFTSettings
    components: Mapping[str, Component]


def needed(settings: OFTSettings) -> tuple[str, ...]:
    """Return the names of the modules that a model with these settings has besides those of the base model."""
    has = {ACTION: settings.head != "discrete", PROPRIO: bool(settings.proprio), NOISY: settings.head == "diffusion"}
    return tuple(name for name, flag in has.items() if flag)


# Files


def find(folder: Path, name: str) -> Path | None:
    """Return the file of a component, or None. Raises CheckpointError if there are several."""
    paths = sorted(path for path in folder.glob(f"{name}--*.pt") if "checkpoint" in path.name)
    if len(paths) > 1:
        listed = ", ".join(path.name for path in paths)
        raise CheckpointError(f"{folder}: several files of {name} ({listed}): keep one of them in the folder")
    return paths[0] if paths else None


def file_name(name: str, step: str = LATEST) -> str:
    """Return the name of a component's file."""
    return f"{name}--{step}_checkpoint.pt"


def read(path: Path) -> Component:
    """Read a component. Raises CheckpointError if the file is not valid or has values that are not finite.

    Nothing but tensors is read: a file that would run code is refused.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a file of tensors, or one with more than tensors, which could run code; it is not read"
        ) from error
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path}: cannot be read ({reason}); download it again") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: expected tensors by name")
    tensors = {_own_name(str(key)): value for key, value in content.items()}
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {key} has values that are not finite: its training failed; use another")
    return Component(path, tensors)


def write(path: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a component under the original names."""
    content = {_stored_name(key, name): value.detach().cpu().contiguous() for key, value in tensors.items()}
    data = io.BytesIO()
    torch.save(content, data)
    durable.write(path, data.getvalue())


def _own_name(key: str) -> str:
    return STORED_BLOCK.sub(r"\1", key.removeprefix(WRAPPED).removeprefix(f"{VISION}."))


def _stored_name(key: str, name: str) -> str:
    if name not in {VISION, FILM}:
        return f"{WRAPPED}{key}"
    block = OWN_BLOCK.sub(r"\1block.", key)
    return f"{VISION}.{block}"


# Models


def attach(model: Any, oft: OFTCheckpoint, *, where: str) -> None:
    """Make a model OFT, with the weights of a checkpoint's components.

    A component keeps the dtype of its file if that is wider than the model's. Raises CheckpointError if a component
    does not fit the model.
    """
    model.extend(oft.settings)
    for name in needed(oft.settings):
        if name not in oft.components:
            raise CheckpointError(f"{where}: no {file_name(name, 'STEP')}: copy it to this folder")
        _load(getattr(model, name), oft.components[name], dtype=model.dtype)
    if oft.settings.film:
        film = oft.components.get(VISION) or oft.components.get(FILM)
        if film is None:
            raise CheckpointError(f"{where}: no {file_name(VISION, 'STEP')}: copy it to this folder")
        _load_film(model.vision_backbone, film, dtype=model.dtype)
    model.stored = {**model.stored, **{name: component.stored for name, component in oft.components.items()}}


def save(model: Any, folder: Path, state: Mapping[str, Tensor], *, is_adapter: bool) -> None:
    """Write the components in a model's state dict.

    With adapters, only the FiLM layers of the vision backbone are written: the adapters are in their own file, and the
    other weights in their base.
    """
    parts = {name: _below(state, name) for name in needed(model.oft)}
    if model.oft.film:
        vision = _below(state, VISION)
        film = {key: value for key, value in vision.items() if FILM_LAYER.search(key)}
        parts |= {FILM: film} if is_adapter else {VISION: vision}
    for name, tensors in parts.items():
        stored = model.stored.get(name, StoredForm())
        write(folder / file_name(name, stored.step), name, in_dtypes(tensors, stored.dtypes))


def without(state: Mapping[str, Tensor], settings: OFTSettings) -> dict[str, Tensor]:
    """Return a state dict without the components, under the names of the base model."""
    prefixes = tuple(f"{name}." for name in needed(settings))
    return {
        key.replace(".base_layer.", "."): value
        for key, value in state.items()
        if not key.startswith(prefixes) and not FILM_LAYER.search(key) and ".lora_" not in key
    }


def merge_vision(model: Any) -> None:
    """Merge the adapters of a vision backbone that was stored with them, so that it can be trained."""
    for name, module in list(model.vision_backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner, _, leaf = name.rpartition(".")
            setattr(model.vision_backbone.get_submodule(owner), leaf, module.get_base_layer())


def is_component(name: str) -> bool:
    """Whether a parameter of a model belongs to a head, a projector or a FiLM layer."""
    own = name.removeprefix("base_model.model.")
    return own.startswith((f"{ACTION}.", f"{PROPRIO}.", f"{NOISY}.")) or FILM_LAYER.search(own) is not None


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _load(module: nn.Module, component: Component, *, dtype: torch.dtype, only: re.Pattern[str] | None = None) -> None:
    """Load a component into a module, whose names and shapes must be the same; if given, those that `only` matches."""
    own = {key: value for key, value in module.state_dict().items() if only is None or only.search(key)}
    expected = {key: tuple(value.shape) for key, value in own.items()}
    shapes = {key: tuple(value.shape) for key, value in component.tensors.items()}
    check_shapes(shapes, expected, where=f"{component.path}: does not fit the model")
    for key, value in component.tensors.items():
        owner, _, leaf = key.rpartition(".")
        wide = torch.promote_types(value.dtype, dtype)
        place = module.get_submodule(owner)
        before = getattr(place, leaf)
        after = nn.Parameter(value.to(before.device, wide), requires_grad=before.requires_grad)
        setattr(place, leaf, after)


def _load_film(backbone: nn.Module, component: Component, *, dtype: torch.dtype) -> None:
    """Load FiLM layers, or a vision backbone with them and perhaps with adapters that are not merged."""
    adapted = {key.partition(".lora_")[0]: len(value) for key, value in component.tensors.items() if ".lora_A." in key}
    if adapted:
        rank = next(iter(adapted.values()))
        config = LoraConfig(r=rank, lora_alpha=min(rank, LARGEST_ALPHA), target_modules=sorted(adapted))
        inject_adapter_in_model(config, backbone)
    only_film = all(FILM_LAYER.search(key) for key in component.tensors)
    _load(backbone, component, dtype=dtype, only=FILM_LAYER if only_film else None)


# Dtypes


def dtypes(tensors: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
    """Return the dtype of each tensor."""
    return {key: value.dtype for key, value in tensors.items()}


def dtypes_of_files(paths: Iterable[Path]) -> dict[str, torch.dtype]:
    """Return the dtype of each tensor in safetensors files."""
    return {
        tensor.name: TORCH_DTYPES[tensor.dtype]
        for path in paths
        for tensor in stored_tensors(path)
        if tensor.dtype in TORCH_DTYPES
    }


def in_dtypes(tensors: Mapping[str, Tensor], stored: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """Return tensors in the dtypes in which they were stored, if this changes no value; otherwise as they are."""
    cast = {key: value.to(stored.get(key, value.dtype)) for key, value in tensors.items()}
    is_exact = all(cast[key].to(value.dtype).equal(value) for key, value in tensors.items())
    return cast if is_exact else dict(tensors)
