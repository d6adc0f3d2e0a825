"""The declaration that an export carries: every vector is canonical already, and the format has its own paths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.declarations.spec import DatasetSpec
from schemas.declarations.tables import SpaceSpec
from schemas.spaces import Space
from schemas.store.arrow import Camera
from schemas.store.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a format keeps what every export has."""

    source: Mapping[str, Any]  # the table of that name
    language: tuple[str, ...]
    id: str
    outcome: str
    timestamp: str | None
    cameras: Mapping[str, str]  # a camera's column in the dataset -> its path in the export
    rgb: frozenset[str] = frozenset()  # columns whose colours were brought into this order


def declaration(dataset: Dataset, paths: Paths, *, view: str | None, space: Space) -> Mapping[str, Any]:
    """Write the declaration that fits the export."""
    spec, columns = dataset.spec, dataset.columns
    embodiment = spec.embodiment
    if view:
        embodiment = embodiment.model_copy(update={"name": f"{embodiment.name}.{view}", "action": SpaceSpec.of(space)})
    if not columns.state:
        embodiment = embodiment.model_copy(update={"state": None})
    roles = [camera for camera in columns.cameras if camera.role and camera.column in paths.cameras]
    declared = {
        **spec.to_json(),
        "source": paths.source,
        "embodiment": embodiment.model_dump(mode="json", exclude_none=True),
        "language": paths.language if columns.origins["instruction"] else [],
        "cameras": {c.role: _camera(c, paths) for c in roles if not c.is_depth},
        "depth": {c.role: _camera(c, paths) for c in roles if c.is_depth},
        "fields": {},
        "decode": {},
        "filters": {},
        "state": embodiment.state.slices("observation.state") if embodiment.state else {},
        "action": embodiment.action.slices("action"),
        "last_action": "recorded" if view or spec.has_last_action else "placeholder",
        "success": paths.outcome if columns.origins["outcome"] else None,
        "id": paths.id,
        "raw": "raw",
    }
    declared |= {"timestamp": paths.timestamp} if paths.timestamp else {}
    if paths.timestamp is None:
        declared.pop("timestamp", None)
    if view:
        declared.pop("views", None)
        declared["control_hz"] = dataset.view(view).control_hz or spec.control_hz
    return DatasetSpec.model_validate(declared).to_json()


def _camera(camera: Camera, paths: Paths) -> dict[str, Any]:
    known = {"metres_per_unit": camera.metres_per_unit} if camera.metres_per_unit else {}
    return {
        "key": paths.cameras[camera.column],
        "channels": "rgb" if camera.column in paths.rgb else camera.channels,
        **known,
    }


def free_name(name: str, taken: Mapping[str, Any] | set[str]) -> str:
    """Give a name that the source does not have: underscores follow it as long as it is taken."""
    while name in taken:
        name += "_"
    return name
