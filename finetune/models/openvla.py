"""OpenVLA: two vision towers, a projector and a Llama. Its outputs equal those of the original code up to rounding."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from finetune.data.preprocessing import Preprocessing
from finetune.models import checkpoint, weights
from finetune.models.acting import ActionStatistics, Policy
from finetune.models.config import OpenVLAConfig
from finetune.models.decoding import check_image_matters
from finetune.models.loading import loadable
from finetune.models.processor import PrismaticProcessor
from finetune.models.vit import IMAGE, PATCHES, AttentionPool, LayerScale, ViT
from schemas.errors import CheckpointError, UsageError
from schemas.source import Array

HEAD = "language_model.lm_head.weight"
IGNORED = -100  # label of tokens that do not count in the loss


class PrismaticVisionBackbone(nn.Module):
    """The two vision towers. Each receives the image with its own normalization."""

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
        """Return the layers of both towers whose output is not used."""
        return [*self.featurizer.unused(), *self.fused_featurizer.unused()]


class PrismaticProjector(nn.Module):
    """Three linear layers that map the towers' features to embeddings of the language model."""

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
    """OpenVLA, with the original names of its class and parameters."""

    config_class = OpenVLAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    processor: PrismaticProcessor | None = None
    preprocessing: Preprocessing | None = None  # as in training; None for published checkpoints
    inserted = PATCHES  # how many image tokens are inserted after the first token of a prompt

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
        """Return the layer that embeds text tokens."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the layer that computes logits over the vocabulary."""
        return self.language_model.get_output_embeddings()

    def checkpoint_activations(self) -> None:
        """Save memory in training: compute activations again in the backward pass, instead of keeping them."""
        # Older versions of transformers have only the second name; newer ones warn about it.
        renamed = hasattr(self, "activation_checkpointing_enable")
        enable = self.activation_checkpointing_enable if renamed else self.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def image_tokens(self, pixel_values: Tensor) -> Tensor:
        """Return the embeddings of the image, [B, 256, H]."""
        return self.projector(self.vision_backbone(pixel_values))

    def forward(
        self,
        input_ids: Tensor,
        *,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits, and the loss if `labels` are given.

        `input_ids` are BOS and the text, padded on the right. The image is inserted after BOS. With `past_key_values`,
        `input_ids` are the tokens that follow, and no image is needed. `labels` are those of `input_ids`; image tokens
        have none. `kwargs` are passed to the language model.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            image = self.image_tokens(pixel_values)
            if len(image) != len(embeddings):
                raise UsageError(f"{len(embeddings)} prompts, {len(image)} images: expected one image for each prompt")
            embeddings = _after_first(embeddings, image.to(embeddings.dtype))
            flat = image.shape[:2]
            if attention_mask is not None:
                attention_mask = _after_first(attention_mask, attention_mask.new_ones(flat))
            if labels is not None:
                labels = _after_first(labels, labels.new_full(flat, IGNORED))
        elif past_key_values is None:
            raise UsageError("pixel_values are required without past_key_values")
        return self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            labels=labels,
            past_key_values=past_key_values,
            **kwargs,
        )

    # Acting

    @property
    def norm_stats(self) -> dict[str, Any]:
        """The statistics of the actions by dataset, in the form of `dataset_statistics.json`."""
        return dict(self.config.norm_stats or {})

    @property
    def policy(self) -> Policy:
        """A policy that predicts actions with this model and its statistics."""
        where = self.config.name_or_path or "config.json"
        return Policy(model=self, statistics=ActionStatistics.of(self.config.norm_stats, where=where))

    def own_processor(self) -> PrismaticProcessor:
        """Return the processor. Raises CheckpointError if there is none."""
        if self.processor is None:
            raise CheckpointError(
                f"{self.config.name_or_path}: no tokenizer in the checkpoint; copy tokenizer.json to its folder"
            )
        return self.processor

    def predict_action(
        self,
        image: Any = None,
        instruction: str | Sequence[str] | None = None,
        unnorm_key: str | None = None,
        *,
        do_sample: bool = False,
        lenient: bool = False,
        **inputs: Tensor,
    ) -> Array:
        """Predict the action for an image and an instruction, or for `inputs` that the processor returned.

        Returns an action [A] for one image, or actions [B, A] for lists of images and instructions. They are float64
        and in the units of the dataset `unnorm_key`, which may be None if there is only one.

        Raises CheckpointError if a predicted token is not an action. If `lenient`, such a token gives the middle of
        its dimension's bounds; the predictions of `policy.act` count them.
        """
        if do_sample:
            raise UsageError("do_sample: not supported; decoding always takes the most likely token")
        policy = replace(self.policy, lenient=lenient)
        if image is None and instruction is None:
            predictions = policy.predict(inputs, unnorm_key=unnorm_key)
        else:
            images = image if isinstance(image, list | tuple) else [image]
            texts = [instruction or ""] if isinstance(instruction, str | bytes | None) else instruction
            predictions = policy.act(images, texts, unnorm_key=unnorm_key)
        return predictions[0].action if len(predictions) == 1 else np.stack([p.action for p in predictions])

    # Files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Self:
        """Load a checkpoint in the original layout, as float32 unless `dtype` is given.

        `norm_stats` and `processor` replace those of the checkpoint. Raises CheckpointError if tensors are missing,
        unexpected, have another shape, are quantized or are not finite, or if there are no statistics. Also raises it
        if the image does not change the output; `self_test=False` skips this check. Raises UsageError if `unnorm_key`
        is not in the statistics, or if the attention or quantization is not available.
        """
        unnorm_key, self_test = kwargs.pop("unnorm_key", None), kwargs.pop("self_test", True)
        processor = kwargs.pop("processor", None)
        folder = checkpoint.local_folder(pretrained_model_name_or_path, kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in checkpoint.HUB_OPTIONS}
        config = kwargs.pop("config", None) or OpenVLAConfig.of(folder)
        config.tiny_vision = checkpoint.tiny_vision(folder) or config.tiny_vision
        config.merged = checkpoint.merged(folder)
        config.norm_stats = kwargs.pop("norm_stats", None) or checkpoint.statistics(folder) or config.norm_stats
        known = ActionStatistics.of(config.norm_stats, where=str(folder))
        if unnorm_key is not None:
            known.named(unnorm_key)
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in cls(config).state_dict().items()}
        if config.text_config.tie_word_embeddings:
            del expected[HEAD]  # the head is the same tensor as the embedding, which is stored only once
        checkpoint.check_layout(folder, expected)
        config.weights_digest = weights.checked_digest(checkpoint.weight_files(folder))
        if processor is None and PrismaticProcessor.is_in(folder):
            processor = PrismaticProcessor.from_pretrained(folder)
        if processor is not None:
            processor.check_fits(config)
        if "dtype" not in kwargs and "torch_dtype" not in kwargs:
            kwargs["dtype"] = torch.float32
        with loadable(str(folder)):
            model = super().from_pretrained(folder, *model_args, config=config, use_safetensors=True, **kwargs)
        model.eval()
        model.preprocessing = checkpoint.preprocessing(folder)
        model.processor = processor
        if self_test:
            check_image_matters(model, where=str(folder))
        return model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint that the original code can load, with statistics and processor."""
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
        if self.config.merged:
            checkpoint.write_json(folder / checkpoint.MERGED, {"adapters": list(self.config.merged)})
        if self.preprocessing is not None:
            checkpoint.write_json(folder / checkpoint.PREPROCESSING, self.preprocessing.to_json())
        if self.processor is not None:
            self.processor.save_pretrained(folder)


def _after_first(row: Tensor, inserted: Tensor) -> Tensor:
    """Insert `inserted` after the first token of each row."""
    return torch.cat([row[:, :1], inserted, row[:, 1:]], dim=1)
