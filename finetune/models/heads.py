"""The action heads and projectors of OpenVLA-OFT, with the original names of their parameters, and DDIM.

A head maps the last hidden states of the language model to a chunk of normalized actions. Projectors turn numbers into
embeddings of the language model.
"""

from math import cos, log, pi

import torch
from torch import Tensor, nn

BLOCKS = 2  # residual blocks of a head
TRAIN_STEPS = 50  # diffusion steps in training, as in the original
LARGEST_BETA = 0.999
CLIP = 1.0  # the largest normalized action
PERIOD = 10000.0  # period of the slowest sine of a timestep


class NumbersProjector(nn.Module):
    """Maps vectors of numbers to embeddings: a proprio of P numbers, or each number of a noisy action (P = 1)."""

    def __init__(self, numbers: int, text: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(numbers, text)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(text, text)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map [..., P] to [..., H]. Computes in the dtype of its weights."""
        return self.fc2(self.act(self.fc1(numbers.to(self.fc1.weight.dtype))))


class ResNetBlock(nn.Module):
    """A LayerNorm, a linear layer and a ReLU, with a residual connection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x + self.ffn(x)


class MLPResNet(nn.Module):
    """The network of both continuous heads."""

    def __init__(self, wide: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(wide)
        self.fc1 = nn.Linear(wide, hidden)
        self.relu = nn.ReLU()
        self.mlp_resnet_blocks = nn.ModuleList(ResNetBlock(hidden) for _ in range(BLOCKS))
        self.layer_norm2 = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, hidden: Tensor, *, numbers: int) -> Tensor:
        """Map hidden states [B, K * A, H], one for each number, to [B, K, A]; A is `numbers`."""
        x = hidden.to(self.fc1.weight.dtype).reshape(len(hidden), -1, numbers * hidden.shape[-1])
        x = self.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1Head(nn.Module):
    """Predicts normalized actions. It is trained with the L1 loss."""

    def __init__(self, numbers: int, text: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.model = MLPResNet(numbers * text, text, numbers)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [B, K * A, H] to normalized actions [B, K, A]."""
        return self.model(hidden, numbers=self.numbers)


class NoisePredictor(nn.Module):
    """The network of the diffusion head, under its original name."""

    def __init__(self, numbers: int, text: int) -> None:
        super().__init__()
        self.mlp_resnet = MLPResNet(numbers * text, text, numbers)


class DiffusionHead(nn.Module):
    """Predicts the noise in noisy actions."""

    def __init__(self, numbers: int, text: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.noise_predictor = NoisePredictor(numbers, text)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [B, K * A, H] to noise [B, K, A]."""
        return self.noise_predictor.mlp_resnet(hidden, numbers=self.numbers)


HEADS = {"l1": L1Head, "diffusion": DiffusionHead}


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Embed diffusion timesteps [B] as sines and cosines, [B, dim] float32."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=timesteps.device) * -(log(PERIOD) / (half - 1)))
    angles = timesteps[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class DDIM:
    """The deterministic sampler of the diffusion head (Song et al., 2021), with a squared cosine schedule.

    It equals diffusers' DDIMScheduler with `squaredcos_cap_v2`, prediction of noise, eta 0, "leading" timesteps and
    samples that are clipped to [-1, 1].
    """

    def __init__(self, steps: int = TRAIN_STEPS) -> None:
        self.steps = steps
        betas = [min(1 - _kept((i + 1) / steps) / _kept(i / steps), LARGEST_BETA) for i in range(steps)]
        self.alphas = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), dim=0)  # [steps]

    def timesteps(self, count: int) -> list[int]:
        """Return the timesteps of a sampling with `count` steps, from the noisiest on."""
        stride = self.steps // count
        return [i * stride for i in reversed(range(count))]

    def noisy(self, actions: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Add noise to actions [B, K, A] at the timesteps [B]."""
        alpha = self.alphas.to(actions.device)[timesteps][:, None, None]
        return alpha.sqrt() * actions + (1 - alpha).sqrt() * noise

    def clean(self, noisy: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Estimate the actions [B, K, A] in noisy ones, from the noise that was predicted at the timesteps [B]."""
        alpha = self.alphas.to(noisy.device)[timesteps][:, None, None]
        return ((noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()).clamp(-CLIP, CLIP)

    def step(self, noisy: Tensor, noise: Tensor, timestep: int, *, count: int) -> Tensor:
        """Return the actions [B, K, A] of the next, less noisy step of a sampling with `count` steps."""
        clean = self.clean(noisy, noise, torch.full((len(noisy),), timestep, device=noisy.device))
        before = timestep - self.steps // count
        alpha = self.alphas[before].to(noisy.device) if before >= 0 else torch.ones((), device=noisy.device)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def _kept(time: float) -> float:
    """Return the share of the signal that is kept at a time from 0 to 1."""
    return cos((time + 0.008) / 1.008 * pi / 2) ** 2
