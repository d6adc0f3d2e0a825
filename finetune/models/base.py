"""Builds the model that is trained: it is read from a checkpoint, or is a small model with new weights."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedTokenizerFast

from finetune.models import checkpoint, smol, words
from finetune.models.config import OpenVLAConfig
from finetune.models.images import ImageTransform
from finetune.models.loading import loadable
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.processor import PrismaticProcessor
from finetune.recipe import ModelRecipe

PADDING = 64  # how many rows the embedding of OpenVLA has besides those of the tokenizer's words
PUBLISHED = "openvla/openvla-7b"  # the defaults of OpenVLAConfig are the dims of this model
NAMES = {"tiny": "none", "smol": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def build(
    settings: ModelRecipe, *, norm_stats: Mapping[str, Any] | None = None, seed: int = 0
) -> OpenVLAForActionPrediction:
    """Build the model of a recipe, with its processor.

    `norm_stats` are the statistics of the training data, in the form of `dataset_statistics.json`. If they are None, a
    checkpoint keeps its own statistics. Random weights depend only on `seed`.
    """
    if settings.is_made_here:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _tiny(settings) if settings.base == "tiny" else _smol(settings)
        _set_attention(model, settings)
        model.config.norm_stats = dict(norm_stats or {})
        return model.to(getattr(torch, settings.dtype)).eval()
    model = OpenVLAForActionPrediction.from_pretrained(
        settings.base,
        dtype=getattr(torch, settings.dtype),
        attn_implementation=settings.attention,
        norm_stats=dict(norm_stats or {}),
    )
    model.own_processor()
    return model


def build_empty(settings: ModelRecipe, config: OpenVLAConfig) -> OpenVLAForActionPrediction:
    """Build the model of a recipe on torch's meta device, without reading weights or allocating memory for them."""
    with torch.device("meta"):
        model = OpenVLAForActionPrediction(config).to(getattr(torch, settings.dtype))
    _set_attention(model, settings)
    return model


def config_of(settings: ModelRecipe) -> OpenVLAConfig:
    """Return the config of a recipe's model. May download JSON files, but no weights."""
    if settings.base == "tiny":
        return _config(settings, words.tokenizer(), text=_tiny_text(settings))
    if settings.base == "smol":
        return _config(settings, smol.tokenizer(), text=smol.config())
    if settings.base == PUBLISHED:
        return OpenVLAConfig(text_config=LlamaConfig(vocab_size=32000 + PADDING))
    folder = checkpoint.local_folder(settings.base, {}, wanted=("*.json",))
    config = OpenVLAConfig.of(folder)
    config.tiny_vision = checkpoint.tiny_vision(folder)
    return config


def _set_attention(model: OpenVLAForActionPrediction, settings: ModelRecipe) -> None:
    with loadable(f'model.attention = "{settings.attention}"'):
        model.set_attn_implementation(settings.attention)


def _tiny(settings: ModelRecipe) -> OpenVLAForActionPrediction:
    return _random(settings, words.tokenizer(), text=_tiny_text(settings))


def _tiny_text(settings: ModelRecipe) -> LlamaConfig:
    dims = settings.text
    return LlamaConfig(
        vocab_size=words.tokenizer().vocab_size + PADDING,
        hidden_size=dims.dim,
        intermediate_size=dims.hidden,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
    )


def _smol(settings: ModelRecipe) -> OpenVLAForActionPrediction:
    language = smol.language_model()
    model = _random(settings, smol.tokenizer(), text=language.config)
    model.language_model.load_state_dict(language.state_dict())
    return model


def _random(
    settings: ModelRecipe, tokenizer: PreTrainedTokenizerFast, *, text: LlamaConfig
) -> OpenVLAForActionPrediction:
    """Build a small model with random weights."""
    model = OpenVLAForActionPrediction(_config(settings, tokenizer, text=text))
    model.processor = PrismaticProcessor(ImageTransform.of({}), tokenizer)
    model.processor.check_fits(model.config)
    return model


def _config(settings: ModelRecipe, tokenizer: PreTrainedTokenizerFast, *, text: LlamaConfig) -> OpenVLAConfig:
    """Return the config of a model with this language model and small vision towers."""
    text.pad_token_id = tokenizer.pad_token_id
    tower = {"embed_dim": settings.vision.dim, "depth": settings.vision.depth, "num_heads": settings.vision.heads}
    config = OpenVLAConfig(
        text_config=text,
        llm_backbone_id=settings.base,
        hf_llm_id=NAMES[settings.base],
        pad_token_id=tokenizer.pad_token_id,
        pad_to_multiple_of=text.vocab_size - tokenizer.vocab_size,
        action_prefix_id=tokenizer.backend_tokenizer.token_to_id(words.SPACE),
        tiny_vision=[tower] * 2,
    )
    config.name_or_path = settings.base
    return config
