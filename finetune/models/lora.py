"""Selects which weights of a model are trained: LoRA adapters, or some or all of the model's own weights.

Adapters are stored in the layout of peft.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.models import checkpoint, weights
from finetune.models.components import is_component
from finetune.models.decoding import check_image_matters
from finetune.recipe import LoraRecipe
from schemas.errors import CheckpointError, UsageError, did_you_mean

Say: TypeAlias = Callable[[str], object]  # gets notes
Mode: TypeAlias = Literal["lora", "full", "frozen-vision", "last-layer"]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
COMPONENTS = r"(action_head|proprio_projector|noisy_action_projector)\..*"  # they are trained themselves
PREFIX, BASE_LAYER = "base_model.model.", ".base_layer.weight"
IN_VISION = f"{PREFIX}vision_backbone."
TRAINED_ON = "oxe_base_xxh3_128"  # key of the metadata with the digest of the base


def silent(_: str) -> None:
    """Ignore a note."""


def apply(model: PreTrainedModel, settings: LoraRecipe) -> PeftModel:
    """Add float32 adapters to the layers whose names end with one of the targets.

    The values of `lora_A` are drawn from a normal distribution with standard deviation 1/rank. `lora_B` is 0, so the
    adapters do not change the model's output before training. Raises UsageError if a target matches no layer.
    """
    _check_targets(model, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it, so a float works
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        init_lora_weights="gaussian",
        exclude_modules=None if model.oft is None else COMPONENTS,
        base_model_name_or_path=model.config.name_or_path or None,
    )
    return _adapted(model, config)


def trainable(model: nn.Module, mode: Mode) -> dict[str, nn.Parameter]:
    """Make only the parameters that a mode trains trainable, and return them by name.

    The head, projectors and FiLM layers of OpenVLA-OFT are trained in every mode. Layers whose output is not used are
    never trained: the last block of each vision tower, its norm and the pooling, and with a continuous head, the layer
    that computes logits.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if (mode == "lora") != isinstance(model, PeftModel):
        raise UsageError(f"mode {mode}: the model has {'no ' if mode == 'lora' else ''}adapters")
    model.requires_grad_(requires_grad=False)
    if mode == "lora":
        for name, parameter in model.named_parameters():
            parameter.requires_grad = ".lora_" in name
    for module in _trained(base, mode):
        module.requires_grad_(requires_grad=True)
    for name, parameter in model.named_parameters():
        if is_component(name):
            parameter.requires_grad = True
    for parameter in _unused(base):
        parameter.requires_grad = False
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _unused(base: Any) -> Iterator[nn.Parameter]:
    """Yield the parameters of layers whose output is not used."""
    for module in base.vision_backbone.unused():
        yield from module.parameters()
    if base.oft is not None and base.oft.head != "discrete":
        is_shared = base.config.text_config.tie_word_embeddings  # with the embedding, whose output is used
        for name, parameter in base.get_output_embeddings().named_parameters():
            if "lora_" in name or not is_shared:
                yield parameter


def _trained(base: Any, mode: Mode) -> Sequence[nn.Module]:
    language = base.language_model
    return {
        "lora": (),
        "full": (base,),
        "frozen-vision": (base.projector, language),
        "last-layer": (language.model.embed_tokens, language.model.layers[-1], language.lm_head),
    }[mode]


def save(model: PeftModel, folder: Path, *, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapters in peft's format, with the digest of the base's files in the metadata of the weights.

    `state` is the gathered state of a model that is sharded over processes. If None, the state of `model` is used. The
    weights of the head, which peft would write, are left out, because they are the same as in the base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    base: Any = model.get_base_model()
    digest = base.config.weights_digest
    save_file(
        {key: value.contiguous() for key, value in adapters.items()},
        folder / WEIGHTS,
        metadata={TRAINED_ON: digest} if digest else None,  # the order of several keys would be random
    )
    config: Any = replace(model.peft_config["default"], inference_mode=True)
    config.target_modules = sorted(config.target_modules)  # peft has a set, which has another order in each process
    config.save_pretrained(str(folder))


def load(model: PreTrainedModel, folder: Path, *, say: Say = silent, vision: bool = True) -> PeftModel:
    """Load the adapters of a folder into a model, and test the result.

    If not `vision`, those of the vision backbone are left out: with FiLM, OpenVLA-OFT stores them in another file.

    Raises CheckpointError if they do not fit the model exactly, have values that are not finite, were trained on
    another base or are already merged into the model, or if the image does not change the output of the adapted model.
    `say` gets a note if the adapters do not record their base.
    """
    config, tensors = _config(folder), _tensors(folder)
    check_base(folder, model.config, say=say)
    config.base_model_name_or_path = model.config.name_or_path or None
    _check_targets(model, sorted(config.target_modules or ()))
    own = {f"{PREFIX}{name}": value for name, value in model.state_dict().items()}
    adapted = _adapted(model, config)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if not vision:
        tensors, expected = (
            {key: value for key, value in part.items() if not key.startswith(IN_VISION)} for part in (tensors, expected)
        )
    stored = {key: value for key, value in tensors.items() if not key.endswith(BASE_LAYER)}
    shapes = ({key: tuple(value.shape) for key, value in tensors.items()} for tensors in (stored, expected))
    checkpoint.check_shapes(*shapes, where=f"{folder}: not an adapter of this model")
    for key in tensors.keys() - stored.keys():
        name = f"{key.removesuffix(BASE_LAYER)}.weight"
        if name not in own or not tensors[key].equal(own[name].to(tensors[key].dtype)):
            raise CheckpointError(f"{folder}: trained on another base: {key} differs from this model's")
    set_peft_model_state_dict(adapted, stored)
    check_image_matters(adapted.eval(), where=str(folder))
    return adapted


def digest(folder: Path) -> str:
    """Return the digest of the adapters in a folder. Raises CheckpointError if they have values that are not finite."""
    return weights.checked_digest([folder / WEIGHTS])


def check_base(folder: Path, base: Any, *, say: Say = silent) -> None:
    """Raise CheckpointError if adapters were trained on another base than that with this config, or are merged into it.

    `base` is an OpenVLAConfig. Also raises it if the adapters have values that are not finite.
    """
    trained_on, name = weights.metadata(folder / WEIGHTS).get(TRAINED_ON), base.name_or_path
    if digest(folder) in (base.merged or ()):
        raise CheckpointError(f"{folder}: these adapters are already merged into {name}: use it without them")
    if trained_on is None:
        say(f"{folder}: does not record the base that it was trained on: whether {name} is that base is not checked")
    elif base.weights_digest is not None and trained_on != base.weights_digest:
        raise CheckpointError(
            f"{folder}: trained on another base: its weights have the digest {trained_on}, those of {name} have "
            f"{base.weights_digest}; name the base that it was trained on, not a merged or converted copy"
        )


def _adapted(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """Add peft's adapters to a model. Two warnings are ignored: one does not apply, and `merge` handles the other."""
    with warnings.catch_warnings():
        for known in (".*is_gradient_checkpointing", ".*tie_word_embeddings"):
            warnings.filterwarnings("ignore", known)
        return get_peft_model(model, config)


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise UsageError(f"lora.targets: no layer is named '{target}'{did_you_mean(target, known)}")


def read_config(folder: Path) -> Any:
    """Read the `adapter_config.json` of a folder."""
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder}: no adapters: {CONFIG} was not found")
    return checkpoint.read_json(folder / CONFIG)


def _config(folder: Path) -> LoraConfig:
    content = read_config(folder)
    kind = content.get("peft_type") if isinstance(content, dict) else None
    if kind != "LORA":
        raise CheckpointError(f"{folder / CONFIG}: expected peft_type LORA, got {kind}")
    if content.get("modules_to_save") or content.get("bias", "none") != "none":
        raise CheckpointError(f"{folder / CONFIG}: modules_to_save and bias are not supported")
    try:
        return LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG}: not a valid config ({error})") from error


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; is {folder} an adapter?") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
