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
from finetune.models import checkpoint, components, layouts, lora, parallel_decoding, weights
from finetune.models.acting import Policy, Sampling, warn
from finetune.models.action_statistics import ActionStatistics
from finetune.models.config import OpenVLAConfig
from finetune.models.decoding import check_image_matters
from finetune.models.heads import HEADS, NumbersProjector
from finetune.models.layouts import Stated, silent
from finetune.models.loading import loadable
from finetune.models.oft import OFTSettings
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

    def forward(self, pixel_values: Tensor, language: Tensor | None = None) -> Tensor:
        """Map n images for each sample, [B, 6n, 224, 224], to [B, 256n, D]. `language` [B, H] is for FiLM."""
        size, channels = pixel_values.shape[:2]
        count = channels // 6
        if pixel_values.shape[1:] != (6 * count, IMAGE, IMAGE) or not count:
            shape = list(pixel_values.shape)
            raise UsageError(
                f"pixel_values: expected [B, 6, {IMAGE}, {IMAGE}], 6 for each image, got {shape}; use the model's "
                "processor"
            )
        images = pixel_values.reshape(size * count, 6, IMAGE, IMAGE).to(self.featurizer.pos_embed.dtype)
        if language is not None:
            language = language.repeat_interleave(count, dim=0)
        first, second = images.split(3, dim=1)
        features = torch.cat([self.featurizer(first, language), self.fused_featurizer(second, language)], dim=-1)
        return features.reshape(size, count * PATCHES, self.dim)

    def add_film(self, text: int) -> None:
        """Add FiLM layers to all blocks. `text` is the width of the language model's embeddings."""
        for tower in (self.featurizer, self.fused_featurizer):
            tower.add_film(text)

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
    oft: OFTSettings | None = None  # None: the model predicts one token after the other, as OpenVLA
    stored: dict[str, components.StoredForm] = {}  # noqa: RUF012 - replaced, never changed: how files store the weights
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

    def image_tokens(self, pixel_values: Tensor, language: Tensor | None = None) -> Tensor:
        """Return the embeddings of n images, [B, 256n, H]. `language` [B, H] is the embedding for FiLM."""
        return self.projector(self.vision_backbone(pixel_values, language))

    def forward(
        self,
        input_ids: Tensor,
        *,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        tail: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | Tensor:
        """Compute logits, and the loss if `labels` are given. With `tail`, predict chunks in one pass: see `chunk`.

        `input_ids` are BOS and the text, padded on the right. The image is inserted after BOS. With `past_key_values`,
        `input_ids` are the tokens that follow, and no image is needed. `labels` are those of `input_ids`; image tokens
        have none. `kwargs` are passed to the language model.
        """
        if tail is not None:
            if pixel_values is None:
                raise UsageError("pixel_values are required")
            return self.chunk(input_ids, pixel_values=pixel_values, attention_mask=attention_mask, tail=tail, **kwargs)
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

    # OpenVLA-OFT

    def extend(self, settings: OFTSettings) -> None:
        """Make this a model of OpenVLA-OFT: add its head and projectors, and FiLM layers to the vision towers.

        The new weights are float32 and random; FiLM layers are 0, so they change nothing before they are trained.
        Raises UsageError if the attention cannot be used with parallel decoding.
        """
        parallel_decoding.check_attention(self.language_model.config._attn_implementation)  # noqa: SLF001
        self.oft, numbers, text = settings, len(settings.actions), self.config.text_config.hidden_size
        with torch.device(next(self.parameters()).device):
            if settings.head != "discrete":
                self.action_head = HEADS[settings.head](numbers, text)
            if settings.proprio:
                self.proprio_projector = NumbersProjector(len(settings.proprio), text)
            if settings.head == "diffusion":
                self.noisy_action_projector = NumbersProjector(1, text)
        if settings.film:
            self.vision_backbone.add_film(text)

    def chunk(
        self,
        input_ids: Tensor,
        *,
        pixel_values: Tensor,
        tail: Tensor,
        attention_mask: Tensor | None = None,
        proprio: Tensor | None = None,
        film_pads: bool | None = None,
        noisy: Tensor | None = None,
        timesteps: Tensor | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Predict chunks of actions in one pass. `forward` calls this if `tail` is given.

        `input_ids`, `attention_mask` and `tail` are those of `with_placeholders`. `pixel_values` [B, 6n, 224, 224] has
        n images for each observation. `proprio` [B, P] is normalized. `film_pads` replaces that of the settings.
        Diffusion needs `noisy` [B, K, A] with their `timesteps` [B], or the number of `steps` in which noise becomes
        actions.

        Returns normalized actions [B, K, A]; the noise in `noisy` if there are timesteps; the logits of the chunk's
        tokens and of the stop token, [B, K * A + 1, vocabulary], for tokens.
        """
        inputs = parallel_decoding.sequence(
            self,
            input_ids,
            pixel_values=pixel_values,
            tail=tail,
            attention_mask=attention_mask,
            proprio=proprio,
            film_pads=film_pads,
        )
        if steps is not None and noisy is not None:
            return parallel_decoding.denoised(self, inputs, noisy, steps=steps)
        return parallel_decoding.predicted(self, inputs, noisy=noisy, timesteps=timesteps)

    def probe(self, prompt: Tensor, pixel_values: Tensor) -> Tensor:
        """Return some output for prompts [B, L] without padding and one image each, for tests of the weights: float32.

        These are the logits after the prompt, or what the head predicts for a proprio and noise of zeros.
        """
        if self.oft is None:
            return self(prompt, pixel_values=pixel_values, logits_to_keep=1).logits.float()
        oft, size, stop = self.oft, len(prompt), self.config.text_config.eos_token_id
        ids, _, tail = parallel_decoding.with_placeholders(
            prompt, torch.ones_like(prompt), size=oft.size, stop=stop, pad=self.config.pad_token_id
        )
        zeros = torch.zeros(size, max(oft.size, len(oft.proprio)), device=prompt.device)
        inputs = {"proprio": zeros[:, : len(oft.proprio)] if oft.proprio else None}
        if oft.head == "diffusion":
            noisy = zeros[:, : oft.size].reshape(size, oft.chunk, -1)
            inputs |= {"noisy": noisy, "timesteps": torch.zeros(size, dtype=torch.long, device=prompt.device)}
        return self(ids, pixel_values=pixel_values, tail=tail, **inputs).float()

    # Acting

    @property
    def norm_stats(self) -> dict[str, Any]:
        """The statistics of the actions by dataset, in the form of `dataset_statistics.json`."""
        return dict(self.config.norm_stats or {})

    @property
    def policy(self) -> Policy:
        """A policy that predicts actions with this model and its statistics."""
        where, method = self.config.name_or_path or "config.json", self.oft.method if self.oft else None
        statistics = ActionStatistics.of(self.config.norm_stats, where=where, method=method)
        return Policy(model=self, statistics=statistics, say=warn)

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
        proprio: Any = None,
        noise: Any = None,
        seed: int | None = None,
        diffusion_steps: int | None = None,
        do_sample: bool = False,
        lenient: bool = False,
        **inputs: Tensor,
    ) -> Array:
        """Predict the action for an image and an instruction, or for `inputs` that the processor returned.

        A list of images with one instruction is one observation. A list of instructions with a list of observations,
        each an image or a list of images, is a batch. `proprio` [P] or [B, P] is in the units of the dataset.
        Diffusion starts from `noise` [K, A] or [B, K, A], which is drawn with `seed` if it is None, and takes
        `diffusion_steps` steps, by default as many as in training.

        Returns an action [A], or a chunk [K, A] if the model predicts chunks; for a batch, [B, A] or [B, K, A]. They
        are float64 and in the units of the dataset `unnorm_key`, which may be None if there is only one.

        Raises CheckpointError if a predicted token is not an action. If `lenient`, such a token gives the middle of
        its dimension's bounds; the predictions of `policy.act` count them.
        """
        if do_sample:
            raise UsageError("do_sample: not supported; decoding always takes the most likely token")
        policy = replace(self.policy, lenient=lenient)
        sampling = Sampling(noise=noise, seed=seed, steps=diffusion_steps)
        if image is None and instruction is None:
            predictions = policy.predict(inputs, unnorm_key=unnorm_key, proprio=proprio, sampling=sampling)
        else:
            is_one = instruction is None or isinstance(instruction, str | bytes)
            texts: Any = [instruction or ""] if is_one else instruction
            observations = [image] if is_one or not isinstance(image, list | tuple) else image
            predictions = policy.act(observations, texts, unnorm_key=unnorm_key, proprio=proprio, sampling=sampling)
        return predictions[0].action if len(predictions) == 1 else np.stack([p.action for p in predictions])

    # Files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Self:
        """Load a checkpoint in the original layout, as float32 unless `dtype` is given.

        `base` is the folder of the language model and vision towers if this folder has only heads, and perhaps adapters
        in `lora_adapter/`, which are merged into the weights in memory. `head`, `chunk` and
        `normalize` state what the original layout of OpenVLA-OFT does not record. `norm_stats` and `processor` replace
        those of the checkpoint. `say` gets notes. Raises CheckpointError if tensors are missing,
        unexpected, have another shape, are quantized or are not finite, or if there are no statistics. Also raises it
        if the image does not change the output; `self_test=False` skips this check. Raises UsageError if `unnorm_key`
        is not in the statistics, or if the attention or quantization is not available.
        """
        unnorm_key, self_test = kwargs.pop("unnorm_key", None), kwargs.pop("self_test", True)
        processor, base, say = kwargs.pop("processor", None), kwargs.pop("base", None), kwargs.pop("say", silent)
        stated = Stated(**{name: kwargs.pop(name, None) for name in ("head", "chunk", "normalize")})
        own = checkpoint.local_folder(pretrained_model_name_or_path, kwargs, wanted=layouts.WANTED)
        folder = own if base is None else checkpoint.local_folder(base, kwargs)
        layouts.check_parts(own, base, say=say)
        kwargs = {key: value for key, value in kwargs.items() if key not in checkpoint.HUB_OPTIONS}
        config = kwargs.pop("config", None) or OpenVLAConfig.of(folder)
        config.tiny_vision = checkpoint.tiny_vision(folder) or config.tiny_vision
        config.merged = checkpoint.merged(folder)
        config.norm_stats = kwargs.pop("norm_stats", None) or checkpoint.statistics(own) or config.norm_stats
        oft = layouts.recognized(own, config.norm_stats, stated)
        method = oft.settings.method if oft else None
        known = ActionStatistics.of(config.norm_stats, where=str(own), method=method)
        if unnorm_key is not None:
            known.named(unnorm_key)
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in cls(config).state_dict().items()}
        if config.text_config.tie_word_embeddings:
            del expected[HEAD]  # the head is the same tensor as the embedding, which is stored only once
        checkpoint.check_layout(folder, expected)
        config.weights_digest = weights.checked_digest(checkpoint.weight_files(folder))
        for place in (own, folder):
            if processor is None and PrismaticProcessor.is_in(place):
                processor = PrismaticProcessor.from_pretrained(place)
        if processor is not None:
            processor.check_fits(config)
        if "dtype" not in kwargs and "torch_dtype" not in kwargs:
            kwargs["dtype"] = torch.float32
        with loadable(str(folder)):
            model = super().from_pretrained(folder, *model_args, config=config, use_safetensors=True, **kwargs)
        model.stored = {
            components.BASE: components.StoredForm(dtypes=components.dtypes_of_files(checkpoint.weight_files(folder)))
        }
        if oft is not None:
            adapter = layouts.unmerged_adapter(own, folder, config.merged)
            if adapter is not None:
                model = lora.load(model, adapter, say=say, vision=not oft.settings.film).merge_and_unload()
            components.attach(model, oft, where=str(own))
            model.name_or_path = model.config.name_or_path = str(own)
        model.eval()
        model.preprocessing = checkpoint.preprocessing(own)
        model.processor = processor
        if self_test:
            check_image_matters(model, where=str(own))
        return model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint that the original code can load, with statistics and processor.

        Without `state_dict`, tensors are written in the dtypes in which they were read, if this changes no value.
        """
        state = kwargs.pop("state_dict", None)
        is_given, state = state is not None, dict(state or self.state_dict())
        main = components.without(state, self.oft) if self.oft else state
        if not is_given and components.BASE in self.stored:
            main = components.in_dtypes(main, self.stored[components.BASE].dtypes)
        if self.config.text_config.tie_word_embeddings:
            main.pop(HEAD, None)
        super().save_pretrained(save_directory, *args, **{**kwargs, "state_dict": main})
        folder, dtypes = Path(save_directory), {value.dtype for value in main.values()}
        self.config.dtype = next(iter(dtypes)) if len(dtypes) == 1 else self.dtype
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
        if self.oft is not None:
            layouts.write(self, folder, state)
        if self.processor is not None:
            self.processor.save_pretrained(folder)


def _after_first(row: Tensor, inserted: Tensor) -> Tensor:
    """Insert `inserted` after the first token of each row."""
    return torch.cat([row[:, :1], inserted, row[:, 1:]], dim=1)
