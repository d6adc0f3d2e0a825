"""The two vision transformers of OpenVLA: DINOv2 with registers, and SigLIP. Parameters have their original names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from schemas.errors import CheckpointError

IMAGE, PATCH = 224, 14
PATCHES = (IMAGE // PATCH) ** 2
EPS = 1e-6
TIMM_NAMES = {"embed_dim": "dim", "depth": "depth", "num_heads": "heads", "mlp_ratio": "mlp_ratio"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTShape:
    """The dims of one vision tower, and which of the optional layers it has."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float
    registers: int | None = None  # number of register tokens; None: neither registers nor a class token
    layer_scale: bool = False
    attention_pool: bool = False  # the checkpoint has the layer, but its output is not used

    def __post_init__(self) -> None:
        """Raise CheckpointError if the dims are not valid."""
        if min(self.dim, self.depth - 1, self.heads) < 1 or self.dim % self.heads or not self.mlp_ratio > 0:
            raise CheckpointError(f"not a valid vision tower: {self.dim} dims, {self.depth} blocks, {self.heads} heads")

    @property
    def hidden(self) -> int:
        """The hidden width of a block's MLP."""
        return int(self.dim * self.mlp_ratio)

    def resized(self, dims: Mapping[str, Any]) -> Self:
        """Return the shape with other dims; `dims` has the names that timm uses."""
        return replace(self, **{name: dims[timm] for timm, name in TIMM_NAMES.items() if timm in dims})


VISION = {  # by name in timm
    "vit_large_patch14_reg4_dinov2.lvd142m": ViTShape(
        dim=1024, depth=24, heads=16, mlp_ratio=4, registers=4, layer_scale=True
    ),
    "vit_so400m_patch14_siglip_224": ViTShape(dim=1152, depth=27, heads=16, mlp_ratio=3.7362, attention_pool=True),
}


class Attention(nn.Module):
    """Full self-attention. The setting of transformers selects the implementation."""

    is_causal = False

    def __init__(self, shape: ViTShape, config: Any) -> None:
        super().__init__()
        self.config, self.heads = config, shape.heads
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim)
        self.proj = nn.Linear(shape.dim, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        size, count, dim = x.shape
        q, k, v = self.qkv(x).reshape(size, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager)  # noqa: SLF001 - the setting has no public name
        out, _ = attend(self, q, k, v, None, scaling=(dim // self.heads) ** -0.5, dropout=0.0, is_causal=False)
        return self.proj(out.reshape(size, count, dim))


def eager(_: nn.Module, q: Tensor, *keys_values: Any, scaling: float, **__: Any) -> tuple[Tensor, Tensor]:
    """Compute attention without a fused kernel, with the same signature as transformers' attention functions."""
    k, v, _mask = keys_values
    weights = torch.softmax(q @ k.transpose(-2, -1) * scaling, dim=-1, dtype=torch.float32).to(q.dtype)
    return (weights @ v).transpose(1, 2), weights


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.dim, shape.hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(shape.hidden, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return self.fc2(self.act(self.fc1(x)))


class LayerScale(nn.Module):
    """Multiplies each dimension by a learned factor."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x * self.scale_factor


class Block(GradientCheckpointingLayer):
    """Attention and MLP, each with a residual connection.

    With FiLM, the features between the two are scaled and shifted by functions of the instruction's embedding.
    """

    def __init__(self, shape: ViTShape, config: Any) -> None:
        super().__init__()
        scale = (lambda: LayerScale(shape.dim)) if shape.layer_scale else nn.Identity
        self.norm1 = nn.LayerNorm(shape.dim, eps=EPS)
        self.attn = Attention(shape, config)
        self.ls1 = scale()
        self.norm2 = nn.LayerNorm(shape.dim, eps=EPS)
        self.mlp = Mlp(shape)
        self.ls2 = scale()
        self.scale: nn.Linear | None = None
        self.shift: nn.Linear | None = None

    def add_film(self, text: int) -> None:
        """Add FiLM layers that change nothing until they are trained. `text` is the width of the embedding."""
        weight = self.norm1.weight
        self.scale, self.shift = (nn.Linear(text, len(weight), device=weight.device) for _ in range(2))
        for parameter in (*self.scale.parameters(), *self.shift.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, language: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D]. `language` [B, H] is the embedding for FiLM."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        if self.scale is not None and self.shift is not None and language is not None:
            language = language.to(self.scale.weight.dtype)
            x = (x * (1 + self.scale(language)[:, None]) + self.shift(language)[:, None]).to(x.dtype)
        return x + self.ls2(self.mlp(self.norm2(x)))


class AttentionPool(nn.Module):
    """SigLIP's pooling. Every checkpoint contains its weights, but its output is not used."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.q = nn.Linear(shape.dim, shape.dim)
        self.kv = nn.Linear(shape.dim, 2 * shape.dim)
        self.proj = nn.Linear(shape.dim, shape.dim)
        self.norm = nn.LayerNorm(shape.dim, eps=EPS)
        self.mlp = Mlp(shape)


class PatchEmbed(nn.Module):
    """Embeds each patch of an image as a vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [B, 3, H, W] to [B, patches, D]."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """One vision tower. Returns the features of the patches after the second-to-last block, without a norm.

    Every checkpoint contains the last block, `norm` and `attn_pool`, but they are not used and get no gradient.
    """

    def __init__(self, shape: ViTShape, config: Any) -> None:
        super().__init__()
        self.prefix = 0 if shape.registers is None else 1 + shape.registers
        if shape.registers is not None:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
            self.reg_token = nn.Parameter(torch.zeros(1, shape.registers, shape.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, PATCHES, shape.dim))
        self.patch_embed = PatchEmbed(shape.dim)
        self.blocks = nn.ModuleList(Block(shape, config) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim, eps=EPS)
        if shape.attention_pool:
            self.attn_pool = AttentionPool(shape)

    def forward(self, pixels: Tensor, language: Tensor | None = None) -> Tensor:
        """Map [B, 3, 224, 224] to [B, 256, D]. `language` [B, H] is the embedding for FiLM."""
        x = self.patch_embed(pixels) + self.pos_embed
        if self.prefix:
            tokens = torch.cat([self.cls_token, self.reg_token], dim=1)
            x = torch.cat([tokens.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks[:-1]:
            x = block(x, language)
        return x[:, self.prefix :]

    def add_film(self, text: int) -> None:
        """Add FiLM layers to all blocks. `text` is the width of the language model's embeddings."""
        for block in self.blocks:
            cast("Block", block).add_film(text)

    def unused(self) -> list[nn.Module]:
        """Return the layers whose output is not used."""
        return [self.blocks[-1], self.norm, *([self.attn_pool] if hasattr(self, "attn_pool") else [])]
