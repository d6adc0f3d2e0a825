"""A chunk of OpenVLA-OFT against as many predictions of OpenVLA, and a training step against that of OpenVLA.

The models are those of tiny-cpu and one with a language model of 100 million parameters.
"""

from pathlib import Path
from typing import Any

import numpy as np
from harness import Side, Trial, arguments, at_least, at_most, compare, publish, run_side, table

SEED, CHUNK, DIMS, BATCH, STEPS, LR = 5, 8, 7, 8, 3, 1e-3
GOAL, GOAL_STEP = 8.0, 1.05
MODELS = {
    "tiny": {},
    "100M": {"text": {"dim": 768, "hidden": 2048, "layers": 14, "heads": 12}, "vision": {"dim": 128, "depth": 4}},
}


def model(name: str, head: str | None) -> Any:
    """Build a model, the same in each process, with one thread: a second one would spin and count as CPU time."""
    import torch

    from finetune.models.base import build
    from finetune.models.oft import OFTSettings
    from finetune.recipe import ModelRecipe

    torch.set_num_threads(1)
    vla = build(ModelRecipe(base="tiny", **MODELS[name]), seed=SEED)
    if head is not None:
        torch.manual_seed(SEED)
        names = tuple(map(str, range(DIMS)))
        vla.extend(OFTSettings(head=head, chunk=CHUNK, method="bounds_q99", actions=names, cameras=("primary",)))
    return vla.eval()


def observation(vla: Any) -> Any:
    """Return the inputs of one observation."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (224, 224, 3), np.uint8)
    return vla.processor.inputs([pixels], ["put the spoon on the towel"])


def tokens(name: str) -> Side:
    """Predict as many actions as a chunk has, one after the other, from one image each."""

    def side(_data: Path, _letter: str) -> Trial:
        from finetune.models.decoding import decode

        vla = model(name, None)
        inputs = observation(vla)
        return Trial(work=lambda: [decode(vla, **inputs, steps=DIMS).ids.tolist() for _ in range(CHUNK)])

    return side


def chunk(name: str, head: str) -> Side:
    """Predict a chunk."""

    def side(_data: Path, _letter: str) -> Trial:
        import torch

        from finetune.models.parallel_decoding import decode_chunk

        vla = model(name, head)
        inputs = observation(vla)
        noise = torch.zeros(1, CHUNK, DIMS) if head == "diffusion" else None
        return Trial(work=lambda: decode_chunk(vla, **inputs, noise=noise, steps=50).tolist())

    return side


def step(head: str | None, *, is_plain: bool = False) -> Side:
    """Train steps of the tiny model: OpenVLA's, with one action; OFT's, with a chunk; or OFT's written by hand."""

    def side(_data: Path, _letter: str) -> Trial:
        import torch

        from finetune.models.lora import trainable
        from finetune.training.objectives import OBJECTIVES, tokens_in_turn

        vla = model("tiny", head)
        trained = list(trainable(vla, "full").values())
        inputs = batch(vla, head)
        optimizer = torch.optim.AdamW(trained, lr=LR)
        objective = by_hand if is_plain else OBJECTIVES[head] if head else tokens_in_turn

        def work() -> list[float]:
            losses = []
            for _ in range(STEPS):
                loss, _ = objective(vla, inputs)
                (loss / inputs.terms).backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(round(float(loss.detach()) / inputs.terms, 4))
            return losses

        return Trial(work=work)

    return side


def batch(vla: Any, head: str | None) -> Any:
    """Collate a batch like those of the loader."""
    from finetune.data.assemble import Batch
    from finetune.training.batches import Collator

    rng, count = np.random.default_rng(SEED), CHUNK if head else 1
    rows = {name: np.arange(BATCH) for name in ("draw", "source", "episode", "step")}
    samples = Batch(
        end=BATCH,
        **rows,
        action=rng.uniform(-1, 1, (BATCH, count, DIMS)).astype(np.float32),
        action_is_pad=np.zeros((BATCH, count), bool),
        action_valid=np.ones((BATCH, DIMS), bool),
        state=None,
        images={"primary": rng.integers(0, 256, (BATCH, 1, 224, 224, 3), np.uint8)},
        image_is_missing={"primary": np.zeros((BATCH, 1), bool)},
        history_is_pad=np.zeros((BATCH, 1), bool),
        instruction=tuple(f"put the spoon on the towel {i % 4}" for i in range(BATCH)),
        broken=(),
        substituted=np.zeros(BATCH, bool),
    )
    return Collator(processor=vla.processor, config=vla.config, cameras=("primary",), oft=vla.oft)(samples)


def by_hand(vla: Any, inputs: Any) -> tuple[Any, None]:
    """Compute the L1 loss as a plain script would: with a mask of all pairs of tokens, and no checks."""
    import torch

    prompt = int(inputs.tail[0, 0])
    text = vla.language_model.model.embed_tokens(inputs.input_ids)
    text = torch.cat([text[:, :prompt], torch.zeros_like(text[:, prompt : prompt + CHUNK * DIMS]), text[:, -1:]], 1)
    image = vla.projector(vla.vision_backbone(inputs.pixel_values))
    sequence = torch.cat([text[:, :1], image, text[:, 1:]], dim=1)
    mask = torch.zeros(len(sequence), 1, sequence.shape[1], sequence.shape[1])
    out = vla.language_model.model(inputs_embeds=sequence, attention_mask=mask, use_cache=False).last_hidden_state
    start = image.shape[1] + prompt - 1
    predicted = vla.action_head(out[:, start : start + CHUNK * DIMS])
    return (predicted - inputs.actions).abs().sum(), None


HEADS = ("l1", "discrete", "diffusion")
PREDICTIONS = {
    f"{name}, {head or f'OpenVLA, {CHUNK} times'}": chunk(name, head) if head else tokens(name)
    for name in MODELS
    for head in (None, *HEADS)
}
TRAININGS = {"OpenVLA": step(None), **{head: step(head) for head in HEADS}, "l1 by hand": step("l1", is_plain=True)}
SIDES: dict[str, Side] = {**PREDICTIONS, **{f"step, {name}": side for name, side in TRAININGS.items()}}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    costs = compare(__file__, args, "A", sides=list(SIDES))
    assert costs["step, l1"].answer == costs["step, l1 by hand"].answer, "the sides have other losses"
    predictions = []
    for name in PREDICTIONS:
        ratio = costs[f"{name.partition(',')[0]}, OpenVLA, {CHUNK} times"].cpu_s / costs[name].cpu_s
        verdict = at_least(ratio, GOAL) if name.endswith(("l1", "discrete")) else ""
        predictions.append((name, f"{costs[name].cpu_s * 1e3:.0f}", f"{ratio:.1f}", verdict))
    steps = []
    for name in TRAININGS:
        cost, base, plain = (costs[f"step, {other}"] for other in (name, "OpenVLA", "l1 by hand"))
        ratios = (cost.cpu_s / base.cpu_s, cost.rss_mb / base.rss_mb, cost.cpu_s / plain.cpu_s)
        verdict = at_most(ratios[2], GOAL_STEP) if name == "l1" else ""
        figures = (f"{cost.cpu_s / STEPS * 1e3:.0f}", f"{cost.rss_mb:.0f}")
        steps.append((name, *figures, *(f"{ratio:.2f}" for ratio in ratios), verdict))
    publish(
        "oft",
        args,
        f"# OpenVLA-OFT: chunks of {CHUNK} actions of {DIMS} numbers, float32\n\n"
        "CPU time of predictions. OpenVLA predicts an action from an image; diffusion takes 50 steps.\n",
        table(("side", "CPU ms", "times as fast as OpenVLA", "goal"), predictions),
        f"A training step of the tiny model, {BATCH} samples. OpenVLA learns one action, the others a chunk.\n",
        table(
            ("side", "CPU ms", "peak MB", "CPU over OpenVLA", "memory over OpenVLA", "CPU over by hand", "goal"), steps
        ),
        "by hand: the same weights, without the masks, checks and gathers of ours; the losses are equal.\n",
        packages=("torch", "transformers"),
    )
    return None


if __name__ == "__main__":
    main()
