"""Open a published dataset with the library `datasets`, directly from the data files that the manifest lists."""

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.declarations.spec import DatasetSpec
from schemas.errors import MissingExtraError, UsageError
from schemas.files.folder import Folder
from schemas.store.arrow import Camera, Layout

if TYPE_CHECKING:
    import datasets

SPLIT = re.compile(r"\w+(\.\w+)*")  # a name of a split that `datasets` allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The data files of a published dataset by split, and the meaning of their columns, to open with `datasets`."""

    folder: Folder
    columns: Layout
    spec: DatasetSpec
    files: Mapping[str, Sequence[str]]

    def load(
        self, split: str | None, *, streaming: bool
    ) -> "datasets.DatasetDict | datasets.Dataset | datasets.IterableDatasetDict | datasets.IterableDataset":
        """Load one split, or all splits as a dict if `split` is None; see `Dataset.to_datasets`."""
        try:
            import datasets  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            if error.name != "datasets":
                raise
            raise MissingExtraError("datasets", extra="hf") from error
        uri, options = self.folder.uri, self.folder.options
        wanted = self.files if split is None else {split: self.files[split]}
        if not wanted:
            return datasets.IterableDatasetDict() if streaming else datasets.DatasetDict()
        for name in wanted:
            if not SPLIT.fullmatch(name):
                raise UsageError(f"{uri}: split '{name}': 'datasets' allows letters, digits, '_' and '.' alone")
        loaded = datasets.load_dataset(
            "parquet",
            data_files={name: [self._pattern(file) for file in files] for name, files in wanted.items()},
            features=datasets.Features.from_arrow_schema(self.columns.schema()),
            split=split,
            streaming=streaming,
            storage_options={uri.partition("://")[0]: options} if options else None,
        )
        for part in loaded.values() if split is None else (loaded,):
            part.info.description = json.dumps(self.describe())
            part.info.license = self.spec.license or ""
            part.info.citation = self.spec.citation or ""
            part.info.homepage = self.spec.homepage or ""
        return loaded

    def _pattern(self, file: str) -> str:
        """Return a glob pattern that matches only this file, because `datasets` uses file names as patterns."""
        place = self.folder.absolute().place(file)
        return glob.escape(place) if self.folder.local else place

    def describe(self) -> dict[str, Any]:
        """Return what the features of `datasets` cannot hold, such as the dimensions' names and the cameras' roles."""
        columns = self.columns
        spaces = {"action": columns.action, "observation.state": columns.state}
        for view in columns.views:
            spaces |= view.spaces
        return {
            "dataset": columns.dataset,
            "control_hz": self.spec.control_hz,
            "names": {name: [dim.name for dim in space.dims] for name, space in spaces.items() if space},
            "cameras": {camera.column: _meaning(camera) for camera in columns.cameras},
        }


def _meaning(camera: Camera) -> dict[str, Any]:
    meaning = {"role": camera.role, "channels": camera.channels, "metres_per_unit": camera.metres_per_unit}
    return {key: value for key, value in meaning.items() if value is not None}
