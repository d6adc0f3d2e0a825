"""Predict 7 tokens with the cache, and without it."""

from pathlib import Path

from harness import Side, Trial, arguments, at_least, compare, publish, run_side, table

SEED, LAYERS, STEPS, TIMES = 5, 4, 7, 3
GOAL = 3.0


def model() -> object:
    """Build a model with 4 layers of width 512 and small vision towers, the same in each process."""
    import torch

    from finetune.models.config import OpenVLAConfig
    from finetune.models.openvla import OpenVLAForActionPrediction

    torch.manual_seed(SEED)
    text = {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8, "num_hidden_layers": LAYERS}
    towers = [{"embed_dim": 96, "depth": 4, "num_heads": 4}, {"embed_dim": 96, "depth": 4, "num_heads": 4}]
    options = {**text, "vocab_size": 32064, "pad_token_id": 32000}
    return OpenVLAForActionPrediction(OpenVLAConfig(text_config=options, tiny_vision=towers)).eval()


def inputs() -> tuple[object, object]:
    """Return a prompt of 20 tokens and an image."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    ids = torch.cat([torch.ones(1, 1), torch.randint(3, 31000, (1, 19), generator=generator)], dim=1).long()
    return ids, torch.randn(1, 6, 224, 224, generator=generator)


def cached(_data: Path, _letter: str) -> Trial:
    """Predict as `oxe predict` does."""
    from finetune.models.decoding import decode

    vla, (ids, pixels) = model(), inputs()
    return Trial(work=lambda: [decode(vla, ids, pixel_values=pixels, steps=STEPS).ids.tolist() for _ in range(TIMES)])


def recomputed(_data: Path, _letter: str) -> Trial:
    """Run the whole model for each token."""
    import torch

    vla, (ids, pixels) = model(), inputs()

    @torch.inference_mode()
    def work() -> list[list[list[int]]]:
        results = []
        for _ in range(TIMES):
            text = torch.cat([ids, torch.tensor([[vla.config.action_prefix_id]])], dim=1)
            for _ in range(STEPS):
                logits = vla(text, pixel_values=pixels, use_cache=False, logits_to_keep=1).logits
                text = torch.cat([text, logits[:, -1].argmax(-1)[:, None]], dim=1)
            results.append(text[:, -STEPS:].tolist())
        return results

    return Trial(work=work)


SIDES: dict[str, Side] = {"cached": cached, "recomputed": recomputed}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    costs = compare(__file__, args, "A", sides=list(SIDES))
    assert len({str(cost.answer) for cost in costs.values()}) == 1, "the sides predict different tokens"
    rows = []
    for side, cost in costs.items():
        ratio = cost.cpu_s / costs["cached"].cpu_s
        verdict = at_least(ratio, GOAL) if side == "recomputed" else ""
        figures = (cost.cpu_s / TIMES * 1e3, cost.wall_s / TIMES * 1e3)
        rows.append((side, *(f"{figure:.0f}" for figure in figures), f"{ratio:.1f}", verdict))
    publish(
        "predict",
        args,
        f"# An action of {STEPS} tokens, a Llama of {LAYERS} layers 512 wide, both towers 4 blocks 96 wide, batch 1\n",
        table(("side", "CPU ms", "wall ms", "CPU over cached", "goal"), rows),
        "recomputed: towers and language model process the whole sequence for each token. The tokens are equal.\n",
        packages=("torch", "transformers"),
    )
    return None


if __name__ == "__main__":
    main()
