"""A locked mixture as batches, for training loops with and without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schemas.errors import MissingExtraError

if TYPE_CHECKING:
    from finetune.data.augment import Recipe
    from finetune.data.loader import Loader
    from finetune.data.resize import Method
    from finetune.data.torch_loader import TorchLoader

GIGABYTE = 1 << 30


def mixture_loader(
    lock: str | Path,
    *,
    batch_size: int = 1,
    part: Literal["train", "val"] = "train",
    cameras: tuple[str, ...] = ("primary",),
    history: int = 1,
    chunk: int = 1,
    ends: Literal["mask", "drop"] = "mask",
    state: bool = False,
    size: tuple[int, int] | None = (224, 224),
    resize: "Method" = "lanczos3",
    augment: "bool | Recipe" = False,
    missing: Literal["error", "black"] = "error",
    corrupt: Literal["error", "substitute"] = "error",
    seed: int | None = None,
    rank: int = 0,
    world: int = 1,
    threads: int = 0,
    cache: str | Path | None = None,
    cache_gb: float = 32,
) -> "Loader":
    """Read batches of numpy arrays from a locked mixture, in the order of its sampling law. See docs/loader.md.

    `augment=True` is OpenVLA's recipe. What has changed since the lock is a MixtureError that names it.

        loader = mixture_loader("kitchen.lock", batch_size=32, chunk=8, augment=True, threads=8)
        for batch in loader: train(batch.images["primary"], batch.action, batch.instruction)
    """
    from finetune.data.augment import Recipe  # noqa: PLC0415
    from finetune.data.loader import Loader, Reading  # noqa: PLC0415 - commands that load no mixture need none of it
    from finetune.data.preprocessing import Preprocessing  # noqa: PLC0415

    recipe = (Recipe() if augment else None) if isinstance(augment, bool) else augment
    reading = Reading(
        cameras=cameras,
        history=history,
        chunk=chunk,
        ends=ends,
        state=state,
        missing=missing,
        corrupt=corrupt,
        preprocessing=Preprocessing(size=size, method=resize, augment=recipe),
    )
    return Loader(
        lock,
        reading,
        batch_size=batch_size,
        part=part,
        seed=seed,
        rank=rank,
        world=world,
        threads=threads,
        cache=cache,
        cache_bytes=int(cache_gb * GIGABYTE),
    )


def torch_loader(loader: "Loader", *, workers: int = 0, pin_memory: bool = False) -> "TorchLoader":
    """Give the same batches as tensors, made by `workers` processes; each process of `torchrun` gets its share.

    for batch in torch_loader(mixture_loader("kitchen.lock", batch_size=32), workers=4): ...
    """
    try:
        from finetune.data.torch_loader import TorchLoader  # noqa: PLC0415 - the rest needs no torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", extra="finetune") from error
    return TorchLoader(loader, workers=workers, pin_memory=pin_memory)
