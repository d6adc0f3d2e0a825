"""Training steps of `oxe train` with the model of tiny-cpu, and of the same model built from transformers' classes."""

from pathlib import Path
from typing import Any

import numpy as np
from harness import Side, Trial, arguments, at_most, compare, publish, run_side, table

SEED, BATCH, STEPS, LR = 5, 16, 6, 1e-3
GOAL = 1.05
DIGITS = 4  # digits of the losses that must be equal
NOT_OURS = ("embeddings.mask_token", "layernorm", "post_layernorm")  # weights that are not used here
DINO = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "blocks.": "encoder.layer.",
    "attn.proj": "attention.o_proj",
    "attn.qkv": "attention.qkv",
    "ls1.scale_factor": "layer_scale1.lambda1",
    "ls2.scale_factor": "layer_scale2.lambda1",
}
SIGLIP = {
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj": "embeddings.patch_embedding",
    "blocks.": "encoder.layers.",
    "attn.proj": "self_attn.out_proj",
    "attn.qkv": "self_attn.qkv",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
}


def recipe() -> Any:
    """Return the recipe tiny-cpu with a constant learning rate and without clipping, like a plain loop."""
    from finetune.recipe import recipe

    return recipe("tiny-cpu").with_(
        ["optimizer.schedule=constant", "optimizer.warmup=0", f"optimizer.lr={LR}", "train.clip=0", f"seed={SEED}"]
    )


def samples() -> Any:
    """Make a batch like those of the loader."""
    from finetune.data.assemble import Batch

    rng = np.random.default_rng(SEED)
    rows = {name: np.arange(BATCH) for name in ("draw", "episode", "step")}
    return Batch(
        end=BATCH,
        **rows,
        source=np.zeros(BATCH, np.int64),
        action=rng.uniform(-1, 1, (BATCH, 1, 7)).astype(np.float32),
        action_is_pad=np.zeros((BATCH, 1), bool),
        action_valid=np.ones((BATCH, 7), bool),
        state=None,
        images={"primary": rng.integers(0, 256, (BATCH, 1, 224, 224, 3), np.uint8)},
        image_is_missing={"primary": np.zeros((BATCH, 1), bool)},
        history_is_pad=np.zeros((BATCH, 1), bool),
        instruction=tuple(f"put the spoon on the towel {i % 4}" for i in range(BATCH)),
        broken=(),
        substituted=np.zeros(BATCH, bool),
    )


def built() -> tuple[Any, Any, Any]:
    """Return the model, a batch and its inputs, with one thread: a second one would spin and count as CPU time."""
    import torch

    from finetune.models.base import build
    from finetune.models.lora import trainable
    from finetune.training.batches import Collator

    torch.set_num_threads(1)
    model, batch = build(recipe().model, seed=SEED), samples()
    trainable(model, "full")
    return model, batch, Collator(processor=model.processor, config=model.config, cameras=("primary",))(batch)


def ours(_data: Path, _letter: str) -> Trial:
    """Train a step like `oxe train`, with its metrics and the gradient norm."""
    import torch

    from finetune.training.engine import TrainingEngine, adamw
    from finetune.training.metrics import Judge
    from finetune.training.parallel import TrainingProcess
    from stats.norm import NormStats

    model, batch, inputs = built()
    ones = np.ones(7)
    norm = NormStats(names=tuple("abcdefg"), mask=ones > 0, q01=-ones, q99=ones)
    judge = Judge(("one",), (norm,), model.config.action_tokenizer)
    engine = TrainingEngine(model, adamw(model, recipe()), recipe(), judge, TrainingProcess(0, 1, torch.device("cpu")))

    def work() -> list[float]:
        steps = [engine.step([(batch, inputs)], number=i, stop=False) for i in range(STEPS)]
        return [stepped.metrics.summary()["loss"] for stepped in steps]

    return Trial(work=work, answer=rounded)


def plain(_data: Path, _letter: str) -> Trial:
    """Train a step by hand: labels are passed to the language model, AdamW updates the weights."""
    import torch

    model, _, inputs = built()
    parts = from_transformers(model)
    optimizer = torch.optim.AdamW(
        [value for part in parts.values() for value in part.parameters()], lr=LR, weight_decay=0.0
    )

    def loss() -> Any:
        dino, siglip = (tower.encoder for tower in (parts["dino"], parts["siglip"]))
        first, second = inputs.pixel_values.split(3, dim=1)
        features = [
            dino(parts["dino"].embeddings(first)).last_hidden_state[:, 5:],
            siglip(inputs_embeds=parts["siglip"].embeddings(second)).last_hidden_state,
        ]
        image = parts["projector"](torch.cat(features, dim=-1))
        text = parts["llama"].get_input_embeddings()(inputs.input_ids)
        seen = inputs.attention_mask.new_ones(image.shape[:2])
        return parts["llama"](
            inputs_embeds=torch.cat([text[:, :1], image, text[:, 1:]], dim=1),
            attention_mask=torch.cat([seen, inputs.attention_mask], dim=1),
            labels=torch.cat([inputs.labels[:, :1], torch.full_like(seen, -100), inputs.labels[:, 1:]], dim=1),
        ).loss

    def work() -> list[float]:
        losses = []
        for _ in range(STEPS):
            step_loss = loss()
            step_loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(step_loss.detach()))
        return losses

    return Trial(work=work, answer=rounded)


def from_transformers(model: Any) -> dict[str, Any]:
    """Build transformers' vision towers with the same weights, without the block whose output is not used."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipVisionConfig, SiglipVisionModel

    one, two = model.config.vision_shapes()
    options = {
        "num_attention_heads": one.heads,
        "num_hidden_layers": one.depth - 1,
        "image_size": 224,
        "patch_size": 14,
    }
    wide = {"intermediate_size": two.hidden, "hidden_act": "gelu", "vision_use_head": False}
    dino = Dinov2WithRegistersConfig(**options, hidden_size=one.dim, mlp_ratio=int(one.mlp_ratio))
    siglip = SiglipVisionConfig(**options, **wide, hidden_size=two.dim)
    towers = model.vision_backbone
    return {
        "dino": filled(Dinov2WithRegistersModel(dino), towers.featurizer, DINO),
        "siglip": filled(SiglipVisionModel(siglip), towers.fused_featurizer, SIGLIP),
        "projector": model.projector,
        "llama": model.language_model,
    }


def filled(tower: Any, ours: Any, names: dict[str, str]) -> Any:
    """Copy weights under transformers' names; the class token has no position embedding."""
    import torch

    state = {}
    for key, value in ours.state_dict().items():
        name = key
        for old, new in names.items():
            name = name.replace(old, new)
        thirds = [name.replace("qkv", f"{which}_proj") for which in "qkv"] if "qkv" in name else [name]
        state.update(zip(thirds, value.chunk(len(thirds)), strict=True))
    positions = next(name for name in state if "position" in name)
    wanted = dict(tower.named_parameters())[positions]
    lacking = wanted.numel() // wanted.shape[-1] - state[positions].shape[1]
    blank = torch.zeros(1, lacking, wanted.shape[-1])
    state[positions] = torch.cat([blank, state[positions]], dim=1).reshape(wanted.shape)
    missing = tower.load_state_dict(state, strict=False).missing_keys
    assert all(name.startswith(NOT_OURS) for name in missing), missing
    return tower


def rounded(losses: list[float]) -> list[float]:
    """Return what must be equal on both sides."""
    return [round(loss, DIGITS) for loss in losses]


SIDES: dict[str, Side] = {"oxe train": ours, "plain": plain}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    costs = compare(__file__, args, "A", sides=list(SIDES))
    assert costs["oxe train"].answer == costs["plain"].answer, "the sides have other losses"
    rows = []
    for side, cost in costs.items():
        ratios = cost.cpu_s / costs["plain"].cpu_s, cost.rss_mb / costs["plain"].rss_mb
        verdict = at_most(max(ratios), GOAL) if side != "plain" else ""
        figures = (f"{cost.cpu_s / STEPS * 1e3:.0f}", f"{cost.wall_s / STEPS * 1e3:.0f}", f"{cost.rss_mb:.0f}")
        rows.append((side, *figures, *(f"{ratio:.2f}" for ratio in ratios), verdict))
    header = ("side", "CPU ms a step", "wall ms", "peak MB", "CPU over plain", "memory over plain", "goal")
    publish(
        "train",
        args,
        f"# A step of tiny-cpu, {BATCH} samples, float32\n",
        table(header, rows),
        "plain: the same weights in transformers' own DINOv2, SigLIP and Llama, without the unused blocks, "
        f"metrics and norm of gradients. The losses of {STEPS} steps agree to {DIGITS} digits. Neither side reads "
        "data.\n",
        packages=("torch", "transformers"),
    )
    return None


if __name__ == "__main__":
    main()
