"""The `config.json` of an OpenVLA checkpoint, read and written in its original form."""

from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from finetune.actions import ActionTokenizer
from finetune.models.checkpoint import read_json
from finetune.models.vit import VISION, ViTShape
from finetune.models.weights import QUANTIZED
from schemas.errors import CheckpointError, SourceError, did_you_mean
from schemas.limits import MAX_LAYERS, MAX_WIDTH, check_limit

DINO_SIGLIP = "dinosiglip-vit-so-224px"
SPACE_ID = 29871  # Llama's token of a single space; the original code inserts it before the first action
ORIGINAL = (
    "arch_specifier",
    "architectures",
    "hf_llm_id",
    "image_resize_strategy",
    "image_sizes",
    "llm_backbone_id",
    "llm_max_length",
    "model_type",
    "n_action_bins",
    "norm_stats",
    "output_projector_states",
    "pad_to_multiple_of",
    "pad_token_id",
    "timm_model_ids",
    "timm_override_act_layers",
    "use_fused_vision_backbone",
    "vision_backbone_id",
)


class OpenVLAConfig(PreTrainedConfig):
    """The config of a model. The keys at the end are not in the original."""

    model_type = "openvla"
    sub_configs: ClassVar = {"text_config": AutoConfig}

    text_config: Any = None
    vision_backbone_id: str = DINO_SIGLIP
    llm_backbone_id: str = "llama2-7b-pure"
    hf_llm_id: str = "meta-llama/Llama-2-7b-hf"
    arch_specifier: str = "no-align+fused-gelu-mlp"
    use_fused_vision_backbone: bool | None = True
    image_resize_strategy: str = "resize-naive"
    image_sizes: Any = (224, 224)
    timm_model_ids: Any = tuple(VISION)
    timm_override_act_layers: Any = (None, None)
    llm_max_length: int = 2048
    pad_token_id: int | None = 32000
    pad_to_multiple_of: int = 64
    n_action_bins: int = 256
    output_projector_states: bool = False
    norm_stats: Any = None
    action_prefix_id: int | None = SPACE_ID  # the token that is appended to a prompt; None: no token is appended
    tiny_vision: Any = None  # the dims of small towers, from `tiny_vision.json`; None: OpenVLA's
    weights_digest: str | None = None  # digest of the files of the model; None: it was made in memory
    merged: tuple[str, ...] = ()  # digests of the adapters that are merged into the weights, from `merged.json`

    def __post_init__(self, **kwargs: Any) -> None:
        """Read the language model's config. Raises CheckpointError if the vision backbone is not supported."""
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = AutoConfig.for_model(**{"model_type": "llama", **(self.text_config or {})})
        super().__post_init__(**kwargs)
        if self.vision_backbone_id != DINO_SIGLIP or not self.use_fused_vision_backbone:
            known = did_you_mean(self.vision_backbone_id, [DINO_SIGLIP])
            raise CheckpointError(f"config.json: unknown vision backbone '{self.vision_backbone_id}'{known}")

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read the config of a checkpoint. Raises CheckpointError if it is not a valid OpenVLA config."""
        path = folder / "config.json"
        content = read_json(path)
        kind = content.get("model_type") if isinstance(content, dict) else None
        if kind != cls.model_type:
            raise CheckpointError(f"{path}: not OpenVLA: expected model_type {cls.model_type}, got {kind}")
        if content.get("quantization_config"):
            raise CheckpointError(f"{path}: quantization_config: {QUANTIZED}")
        try:
            config = cls(**{**content, "name_or_path": str(folder), "weights_digest": None, "merged": ()})
            config._check_sizes()
        except SourceError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
            raise CheckpointError(f"{path}: not a valid config ({error})") from error
        return config

    def _check_sizes(self) -> None:
        """Raise SourceError if the model would have impossibly many layers, or layers that are impossibly wide."""
        text = self.text_config
        check_limit(int(text.num_hidden_layers), MAX_LAYERS, "layers", what="text_config")
        for name in ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"):
            check_limit(int(getattr(text, name)), MAX_WIDTH, name, what="text_config")

    @property
    def action_vocab(self) -> int:
        """The number of words of the tokenizer. It equals the number of rows of the embedding without its padding."""
        return int(self.text_config.vocab_size) - self.pad_to_multiple_of

    @property
    def action_tokenizer(self) -> ActionTokenizer:
        """The tokenizer of actions for this model's vocabulary."""
        return ActionTokenizer(self.action_vocab, self.n_action_bins)

    def vision_shapes(self) -> list[ViTShape]:
        """Return the dims of the two vision towers, in the order in which their features are concatenated."""
        shapes = list(VISION.values())
        if self.tiny_vision is None:
            return shapes
        if len(self.tiny_vision) != len(shapes):
            raise CheckpointError(f"tiny_vision.json: expected {len(shapes)} towers, got {len(self.tiny_vision)}")
        return [shape.resized(dims) for shape, dims in zip(shapes, self.tiny_vision, strict=True)]

    def original(self) -> dict[str, Any]:
        """Return the content of `config.json` in a form that the original code reads with transformers 4.40."""
        content = {key: getattr(self, key) for key in ORIGINAL}
        if self.action_prefix_id != SPACE_ID:
            content["action_prefix_id"] = self.action_prefix_id
        dtype = {"torch_dtype": str(self.dtype or "bfloat16").removeprefix("torch.")}
        return dict(sorted({**content, **dtype, "text_config": {**self._original_text(), **dtype}}.items()))

    def generation(self) -> dict[str, Any]:
        """Return the content of `generation_config.json`."""
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        return {"_from_model_config": True, **{name: getattr(self.text_config, name) for name in names}}

    def _original_text(self) -> dict[str, Any]:
        """Return settings of the language model that differ from Llama's defaults, named as in transformers 4.40."""
        settings = {
            key: value
            for key, value in self.text_config.to_diff_dict().items()
            if key not in {"_attn_implementation", "_name_or_path", "dtype", "transformers_version", "rope_parameters"}
        }
        rope = dict(self.text_config.rope_parameters or {})
        theta, kind = rope.pop("rope_theta", 10000.0), rope.pop("rope_type", "default")
        if theta != 10000.0:
            settings["rope_theta"] = theta
        if kind != "default":
            settings["rope_scaling"] = {"type": kind, **rope}
        return {"model_type": self.text_config.model_type, **settings}
