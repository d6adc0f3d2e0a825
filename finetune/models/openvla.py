"""OpenVLA: two vision towers, a projector and a Llama, equal to the original to the last digit that matters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint
from finetune.models.config import OpenVLAConfig
from finetune.models.decoding import Predictor, Statistics, check_image_matters
from finetune.models.images import as_trained
from finetune.models.processor import PrismaticProcessor
from finetune.models.vit import IMAGE, PATCHES, AttentionPool, LayerScale, ViT
from schemas.errors import CheckpointError, UsageError
from schemas.source import Array

HEAD = "language_model.lm_head.weight"
IGNORED = -100  # a label that no loss counts


class PrismaticVisionBackbone(nn.Module):
    """Both towers side by side: one image comes in twice, as each of them wants it normalized."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        first, second = config.vision_shapes()
        self.featurizer = ViT(first, config)
        self.fused_featurizer = ViT(second, config)
        self.dim = first.dim + second.dim

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map [B, 6, 224, 224] to [B, 256, D]."""
        if pixel_values.shape[1:] != (6, IMAGE, IMAGE):
            shape = list(pixel_values.shape)
            raise UsageError(f"pixel_values: expected [B, 6, {IMAGE}, {IMAGE}], got {shape}; use the model's processor")
        first, second = pixel_values.to(self.featurizer.pos_embed.dtype).split(3, dim=1)
        return torch.cat([self.featurizer(first), self.fused_featurizer(second)], dim=-1)

    def unused(self) -> list[nn.Module]:
        """Give what computes nothing in either tower."""
        return [*self.featurizer.unused(), *self.fused_featurizer.unused()]


class PrismaticProjector(nn.Module):
    """Three layers from the towers' features to the language model's embeddings."""

    def __init__(self, vision: int, text: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision, 4 * vision)
        self.act1 = nn.GELU()
        self.fc2 = nn.Linear(4 * vision, text)
        self.act2 = nn.GELU()
        self.fc3 = nn.Linear(text, text)

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, N, vision] to [B, N, text]."""
        return self.fc3(self.act2(self.fc2(self.act1(self.fc1(features)))))


class OpenVLAForActionPrediction(PreTrainedModel):
    """The model under its original name, with its original parameters."""

    config_class = OpenVLAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    processor: PrismaticProcessor | None = None
    preprocessing: Preprocessing | None = None  # of the training's images; published checkpoints do not say it
    inserted = PATCHES  # tokens between the first word and the rest

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__(config)
        self.vision_backbone = PrismaticVisionBackbone(config)
        self.projector = PrismaticProjector(self.vision_backbone.dim, config.text_config.hidden_size)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ViT):
            for name in ("cls_token", "reg_token", "pos_embed"):
                if hasattr(module, name):
                    init.normal_(getattr(module, name), std=0.02)
        elif isinstance(module, AttentionPool):
            init.normal_(module.latent, std=0.02)
        elif isinstance(module, LayerScale):
            init.ones_(module.scale_factor)

    def get_input_embeddings(self) -> nn.Module:
        """Give the embedding of the text."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Give the head over the vocabulary."""
        return self.language_model.get_output_embeddings()

    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        # Older transformers have it under the second name alone; newer ones warn of that name.
        renamed = hasattr(self, "activation_checkpointing_enable")
        enable = self.activation_checkpointing_enable if renamed else self.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def image_tokens(self, pixel_values: Tensor) -> Tensor:
        """Give the embeddings that stand for the image, [B, 256, H]."""
        return self.projector(self.vision_backbone(pixel_values))

    def forward(
        self,
        input_ids: Tensor,
        *,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        **told: Any,
    ) -> CausalLMOutputWithPast:
        """Run over [BOS, image, text], padded on the right; with a cache, over the text that follows.

        `labels` are those of `input_ids`; the image has none. What else is told goes to the language model.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            image = self.image_tokens(pixel_values)
            if len(image) != len(embeddings):
                raise UsageError(f"{len(embeddings)} prompts and {len(image)} images: each prompt needs one image")
            embeddings = _after_first(embeddings, image.to(embeddings.dtype))
            flat = image.shape[:2]
            if attention_mask is not None:
                attention_mask = _after_first(attention_mask, attention_mask.new_ones(flat))
            if labels is not None:
                labels = _after_first(labels, labels.new_full(flat, IGNORED))
        elif past_key_values is None:
            raise UsageError("pixel_values are missing: the model would answer without seeing anything")
        return self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            labels=labels,
            past_key_values=past_key_values,
            **told,
        )

    # Acting

    @property
    def norm_stats(self) -> dict[str, Any]:
        """Give the statistics of the actions, as the checkpoint has them."""
        return dict(self.config.norm_stats or {})

    @property
    def predictor(self) -> Predictor:
        """Give what turns inputs into actions."""
        return Predictor(self, Statistics.of(self.config.norm_stats, where=self.config.name_or_path or "config.json"))

    def predict_action(
        self,
        image: Any = None,
        instruction: str | Sequence[str] | None = None,
        unnorm_key: str | None = None,
        *,
        do_sample: bool = False,
        **inputs: Tensor,
    ) -> Array:
        """Give the action for an image and an instruction, or for what the processor made of them.

        One pair gives [A], lists of both give [B, A], float64, in the units of the statistics named `unnorm_key`.
        """
        if do_sample:
            raise UsageError("do_sample: actions are not sampled here; the likeliest token is taken each time")
        if image is not None or instruction is not None:
            if self.processor is None:
                raise CheckpointError(
                    f"{self.config.name_or_path}: no tokenizer beside the weights; give a processor's inputs"
                )
            inputs = dict(self.processor.inputs(self.seen(image), instruction).to(self.device))
        found = self.predictor(**inputs, unnorm_key=unnorm_key)
        return found.actions[0] if len(found.actions) == 1 else found.actions

    def seen(self, image: Any, *, center_crop: bool | None = None) -> Any:
        """Give an image, or a list of them, as this policy was trained to see it, if its checkpoint says how.

        `center_crop` crops, or does not, whatever the training did.
        """
        if self.preprocessing is None:
            return image
        acting = self.preprocessing.acting(center_crop=center_crop)
        return (
            [as_trained(one, acting) for one in image] if isinstance(image, list | tuple) else as_trained(image, acting)
        )

    # Files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Self:
        """Load a checkpoint of the original layout, float32 unless `dtype` says otherwise.

        Refused: keys that are missing, extra or of another shape; no statistics (`norm_stats` may give them); an
        `unnorm_key` they do not have; an image that changes nothing (`self_test=False` leaves that test out).
        """
        unnorm_key, self_test = kwargs.pop("unnorm_key", None), kwargs.pop("self_test", True)
        folder = checkpoint.local_folder(pretrained_model_name_or_path, kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in checkpoint.FETCHING}
        config = kwargs.pop("config", None) or OpenVLAConfig.of(folder)
        config.tiny_vision = checkpoint.tiny_vision(folder) or config.tiny_vision
        config.norm_stats = kwargs.pop("norm_stats", None) or checkpoint.statistics(folder) or config.norm_stats
        known = Statistics.of(config.norm_stats, where=str(folder))
        if unnorm_key is not None:
            known.named(unnorm_key)
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in cls(config).state_dict().items()}
        if config.text_config.tie_word_embeddings:
            del expected[HEAD]  # it is the embedding, stored once
        checkpoint.check_layout(folder, expected)
        if "dtype" not in kwargs and "torch_dtype" not in kwargs:
            kwargs["dtype"] = torch.float32
        model = super().from_pretrained(folder, *model_args, config=config, use_safetensors=True, **kwargs)
        model.eval()
        model.preprocessing = checkpoint.preprocessing(folder)
        if PrismaticProcessor.is_in(folder):
            model.processor = PrismaticProcessor.from_pretrained(folder)
            model.processor.check_fits(config)
        if self_test:
            check_image_matters(model)
        return model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint that the original code loads, with statistics and processor."""
        if self.config.text_config.tie_word_embeddings and kwargs.get("state_dict"):
            kwargs["state_dict"] = {key: value for key, value in kwargs["state_dict"].items() if key != HEAD}
        super().save_pretrained(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        version = {"transformers_version": "4.40.1"}
        checkpoint.write_json(folder / "config.json", {**self.config.original(), **version})
        checkpoint.write_json(folder / "generation_config.json", {**self.config.generation(), **version})
        checkpoint.write_json(folder / checkpoint.STATISTICS, self.norm_stats)
        if self.config.tiny_vision is not None:
            checkpoint.write_json(folder / checkpoint.TINY_VISION, {"vision": self.config.tiny_vision})
        if self.preprocessing is not None:
            checkpoint.write_json(folder / checkpoint.PREPROCESSING, self.preprocessing.to_json())
        if self.processor is not None:
            self.processor.save_pretrained(folder)


def _after_first(row: Tensor, inserted: Tensor) -> Tensor:
    """Put `inserted` behind the first token of every row."""
    return torch.cat([row[:, :1], inserted, row[:, 1:]], dim=1)
