"""The public functions that load training data: batches of a locked mixture, frames of a published dataset."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.data.augment import Augmentation
from finetune.data.loader import Loader, LoaderOptions
from finetune.data.preprocessing import Preprocessing
from finetune.data.resize import Method
from finetune.data.step_table import read
from oxe_tools.statistics import stats
from schemas.errors import MissingExtraError
from schemas.store.dataset import open_dataset

if TYPE_CHECKING:
    from finetune.data.frames import FrameDataset
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
    resize: Method = "lanczos3",
    augment: bool | Augmentation = False,
    missing: Literal["error", "black"] = "error",
    corrupt: Literal["error", "substitute"] = "error",
    paraphrases: bool = True,
    seed: int | None = None,
    rank: int = 0,
    world: int = 1,
    threads: int = 0,
    cache: str | Path | None = None,
    cache_gb: float = 32,
) -> Loader:
    """Return a loader that yields numpy batches of a locked mixture, in the order of the mixture's draws.

    `augment=True` applies OpenVLA's augmentation. docs/loader.md describes all parameters. Raises MixtureError if a
    dataset has changed since the mixture was locked.

        loader = mixture_loader("kitchen.lock", batch_size=32, chunk=8, augment=True, threads=8)
        for batch in loader: train(batch.images["primary"], batch.action, batch.instruction)
    """
    recipe = (Augmentation() if augment else None) if isinstance(augment, bool) else augment
    reading = LoaderOptions(
        cameras=cameras,
        history=history,
        chunk=chunk,
        ends=ends,
        state=state,
        missing=missing,
        corrupt=corrupt,
        paraphrases=paraphrases,
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


def torch_loader(loader: Loader, *, workers: int = 0, pin_memory: bool = False) -> "TorchLoader":
    """Return a loader that yields the batches of `loader` as torch tensors, read by `workers` processes.

    Under `torchrun`, each process gets its own share of each batch.

    for batch in torch_loader(mixture_loader("kitchen.lock", batch_size=32), workers=4): ...
    """
    try:
        from finetune.data.torch_loader import TorchLoader  # noqa: PLC0415 - the rest needs no torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", extra="finetune") from error
    return TorchLoader(loader, workers=workers, pin_memory=pin_memory)


def torch_dataset(
    path: str | Path,
    *,
    view: str | None = None,
    split: str | None = None,
    episodes: Sequence[int] | None = None,
    cameras: Sequence[str] | None = None,
    delta_timestamps: Mapping[str, Sequence[float]] | None = None,
    tolerance_s: float = 1e-4,
    image_transforms: Callable[[Any], Any] | None = None,
    image_type: Literal["float32", "uint8"] = "float32",
    missing: Literal["error", "black"] = "error",
) -> "FrameDataset":
    """Open a published dataset as a map-style torch `Dataset` with one item per frame, as in LeRobot.

    `delta_timestamps` maps a key to offsets in seconds, relative to the item's frame. The values at these offsets are
    stacked, and `<key>_is_pad` is true for offsets outside the episode. `episodes` are values of `episode_index`;
    `cameras` are names or roles of cameras. docs/torch.md describes all parameters.

        frames = torch_dataset("kitchen", view="eef_delta", delta_timestamps={"action": [0, 0.1, 0.2]})
        for batch in torch.utils.data.DataLoader(frames, batch_size=32, shuffle=True, num_workers=4): ...
    """
    try:
        from finetune.data.cameras import Images  # noqa: PLC0415 - the rest needs no torch
        from finetune.data.frames import FrameDataset  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", extra="finetune") from error
    dataset = open_dataset(path)
    return FrameDataset(
        dataset,
        read(dataset, view=view, split=split, episodes=episodes),
        action_space=dataset.action_space(view),
        state_space=dataset.state_space(view),
        control_hz=(dataset.view(view).control_hz if view else None) or dataset.spec.control_hz,
        images=Images(
            dataset,
            names=cameras,
            keys=delta_timestamps or {},
            kind=image_type,
            missing=missing,
            transforms=image_transforms,
        ),
        delta_timestamps=delta_timestamps or {},
        tolerance_s=tolerance_s,
        statistics=partial(stats, dataset.folder.absolute().uri, view=view, split=split),
    )
