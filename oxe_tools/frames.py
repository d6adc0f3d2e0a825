"""A published dataset for a plain torch training loop."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oxe_tools.statistics import stats
from schemas.errors import MissingExtraError
from schemas.store.dataset import open_dataset

if TYPE_CHECKING:
    from finetune.data.frames import FrameDataset


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
    """Open a published dataset as a map-style `torch.utils.data.Dataset`, one item per frame, as LeRobot gives them.

    Seconds in `delta_timestamps` stack what lies beside a frame of the same episode, with `<key>_is_pad`. `episodes`
    names them by `episode_index`, `cameras` by name or role. See docs/torch.md.

        frames = torch_dataset("kitchen", view="eef_delta", delta_timestamps={"action": [0, 0.1, 0.2]})
        for batch in torch.utils.data.DataLoader(frames, batch_size=32, shuffle=True, num_workers=4): ...
    """
    try:
        from finetune.data.cameras import Images  # noqa: PLC0415 - reading a dataset needs no torch
        from finetune.data.frames import FrameDataset  # noqa: PLC0415
        from finetune.data.step_table import read  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", extra="finetune") from error
    dataset = open_dataset(path)
    return FrameDataset(
        dataset,
        read(dataset, view=view, split=split, episodes=episodes),
        action_space=dataset.action_space(view),
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
