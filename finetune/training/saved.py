"""Counts the bytes that a step saves for its backward pass, on fake tensors."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune.models.oft import OFTSettings
from finetune.models.vit import IMAGE, PATCHES


@dataclass(slots=True)
class SavedBytes:
    """Bytes saved for the backward pass: outside the blocks, in each block, and of each block's inputs."""

    outside: int = 0
    inside: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    is_in_block: bool = False
    seen: dict[int, Tensor] = field(default_factory=dict)  # kept, so that no address is reused

    def pack(self, tensor: Tensor) -> Tensor:
        """Count the bytes of a tensor, unless its storage was counted before."""
        address = _address(tensor)
        if address not in self.seen:
            self.seen[address] = tensor
            size = tensor.untyped_storage().nbytes()
            if self.is_in_block:
                self.inside[-1] += size
            else:
                self.outside += size
        return tensor

    def enter(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Count the tensors that follow as part of a new block. Called before the forward pass of a block."""
        self.is_in_block = True
        self.inside.append(0)
        self.inputs.append(args[0].nbytes)

    def leave(self, *_: Any) -> None:
        """Count the tensors that follow as outside of blocks. Called after the forward pass of a block."""
        self.is_in_block = False


def saved(
    model: nn.Module, samples: int, *, tokens: int, last: int, half: bool, oft: OFTSettings | None = None
) -> SavedBytes:
    """Trace a step and return the bytes that it saves. Each of the `samples` samples has `tokens` tokens of text.

    Only the last `last` tokens count in the loss. `half` enables autocast to bf16. `oft` are the settings of a model of
    OpenVLA-OFT.
    """
    trace = SavedBytes()
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        stack.enter_context(_watched(model, trace))
        state = _empty(model)
        trace.seen |= {_address(value): value for value in state.values()}
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(trace.pack, lambda tensor: tensor))
        stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16, enabled=half))
        ids = torch.zeros(samples, tokens, dtype=torch.long)
        if oft is None:
            kwargs = {"use_cache": False, "logits_to_keep": PATCHES + torch.arange(-last, 0) + tokens}
        else:
            kwargs = _of_chunk(oft, ids, last)
        kwargs["pixel_values"] = torch.zeros(samples, 6 * ((oft and oft.images) or 1), IMAGE, IMAGE)
        out = torch.func.functional_call(model, state, (ids,), kwargs)
        if oft is None or oft.head == "discrete":
            logits = (out.logits if oft is None else out).float()
            nn.functional.cross_entropy(logits.flatten(0, 1), torch.zeros(samples * last, dtype=torch.long))
        else:
            (out.float() - torch.zeros(out.shape)).abs().sum()
    return trace


def _of_chunk(oft: OFTSettings, ids: Tensor, last: int) -> dict[str, Any]:
    """Return the inputs of a model of OpenVLA-OFT, besides ids and images."""
    size, tokens = ids.shape
    kwargs: dict[str, Any] = {
        "tail": torch.arange(tokens - last, tokens).expand(size, -1),
        "attention_mask": torch.ones(size, tokens, dtype=torch.long),
    }
    if oft.proprio:
        kwargs["proprio"] = torch.zeros(size, len(oft.proprio))
    if oft.head == "diffusion":
        kwargs["noisy"] = torch.zeros(size, oft.chunk, len(oft.actions))
        kwargs["timesteps"] = torch.zeros(size, dtype=torch.long)
    return kwargs


def _empty(model: nn.Module) -> dict[str, Tensor]:
    """Return fake CPU tensors for the parameters and buffers of a model."""
    state = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = torch.empty(value.shape, dtype=value.dtype)
        state[name].requires_grad = value.requires_grad
    return state


@contextmanager
def _watched(model: nn.Module, trace: SavedBytes) -> Iterator[None]:
    """Call `trace.enter` and `trace.leave` before and after the forward pass of each block."""
    hooks = [block.register_forward_pre_hook(trace.enter) for block in blocks(model)]
    hooks += [block.register_forward_hook(trace.leave) for block in blocks(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - fake tensors have no other address


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose activations can be computed again instead of being saved."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
