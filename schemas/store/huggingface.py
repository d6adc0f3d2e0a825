"""A published dataset as the library `datasets` has it, straight from the data files that the manifest lists."""

import glob
import json
import re
from typing import TYPE_CHECKING, Any

from schemas.errors import MissingExtraError, UsageError, did_you_mean
from schemas.store.arrow import Camera
from schemas.store.dataset import Dataset

if TYPE_CHECKING:
    import datasets

SPLIT = re.compile(r"\w+(\.\w+)*")  # a name that `datasets` can have


def to_datasets(
    dataset: Dataset, split: str | None, *, streaming: bool
) -> "datasets.DatasetDict | datasets.Dataset | datasets.IterableDatasetDict | datasets.IterableDataset":
    """Load a split, or all of them as a dict; see `Dataset.to_datasets`."""
    try:
        import datasets  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise MissingExtraError("datasets", extra="hf") from error
    files = _files(dataset)
    if split is not None and split not in files:
        raise UsageError(f"{dataset.uri}: no split '{split}'{did_you_mean(split, files)}")
    wanted = files if split is None else {split: files[split]}
    if not wanted:
        return datasets.IterableDatasetDict() if streaming else datasets.DatasetDict()
    for name in wanted:
        if not SPLIT.fullmatch(name):
            raise UsageError(f"{dataset.uri}: split '{name}': 'datasets' allows letters, digits, '_' and '.' alone")
    loaded = datasets.load_dataset(
        "parquet",
        data_files=wanted,
        features=datasets.Features.from_arrow_schema(dataset.columns.schema()),
        split=split,
        streaming=streaming,
        storage_options={dataset.uri.partition("://")[0]: dataset.folder.options} if dataset.folder.options else None,
    )
    for part in loaded.values() if split is None else (loaded,):
        part.info.description = json.dumps(describe(dataset))
        part.info.license, part.info.citation, part.info.homepage = (
            text or "" for text in (dataset.spec.license, dataset.spec.citation, dataset.spec.homepage)
        )
    return loaded


def _files(dataset: Dataset) -> dict[str, list[str]]:
    """List the data files of each split, absolute and as patterns that match nothing else."""
    folder = dataset.folder.absolute()
    files: dict[str, list[str]] = {}
    for file in dataset.manifest["files"]:
        place = folder.place(file["path"])
        files.setdefault(file["split"], []).append(glob.escape(place) if folder.local else place)
    return files


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what features cannot say: the names of the dimensions, and what the cameras are."""
    columns = dataset.columns
    spaces = {"action": columns.action, "observation.state": columns.state}
    spaces |= {view.column: view.space for view in columns.views}
    return {
        "dataset": columns.dataset,
        "control_hz": dataset.spec.control_hz,
        "names": {name: [dim.name for dim in space.dims] for name, space in spaces.items() if space},
        "cameras": {camera.column: _meaning(camera) for camera in columns.cameras},
    }


def _meaning(camera: Camera) -> dict[str, Any]:
    meaning = {"role": camera.role, "channels": camera.channels, "metres_per_unit": camera.metres_per_unit}
    return {key: value for key, value in meaning.items() if value is not None}
