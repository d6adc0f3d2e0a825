"""The declaration of an export, which reads the export back.

The exported action and state are already converted, so the declaration reads them without ops. Only vectors with the
unit `travel` are exported as they were recorded (`recorded.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.export.recorded import RecordedVector, recorded_vector
from schemas.declarations.spec import VECTORS, DatasetSpec
from schemas.declarations.tables import SpaceSpec
from schemas.spaces import Space
from schemas.store.arrow import Camera
from schemas.store.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPaths:
    """Where a format stores the fields that every export has."""

    source: Mapping[str, Any]  # the [source] table
    language: tuple[str, ...]
    id: str
    outcome: str
    timestamp: str | None
    cameras: Mapping[str, str]  # camera column in the dataset -> path in the export
    rgb: frozenset[str] = frozenset()  # camera columns that were converted to RGB


def declaration(dataset: Dataset, paths: FieldPaths, *, view: str | None, space: Space) -> Mapping[str, Any]:
    """Return the declaration that reads the export back, as JSON."""
    spec, columns = dataset.spec, dataset.columns
    embodiment = spec.embodiment
    if view:
        embodiment = embodiment.model_copy(update={"name": f"{embodiment.name}.{view}", "action": SpaceSpec.of(space)})
        if dataset.view(view).has_state and (own := dataset.state_space(view)):
            embodiment = embodiment.model_copy(update={"state": SpaceSpec.of(own)})
    if not dataset.state_space(view):
        embodiment = embodiment.model_copy(update={"state": None})
    state, action = (recorded_vector(dataset, which, view=view) for which in VECTORS)
    if action:  # a view of the same Space keeps the parts
        embodiment = embodiment.model_copy(update={"action": spec.embodiment.action})
    if state:
        embodiment = embodiment.model_copy(update={"state": spec.embodiment.state})
    cameras = [camera for camera in columns.cameras if camera.role and camera.column in paths.cameras]
    declared = {
        **spec.to_json(),
        "source": paths.source,
        "embodiment": embodiment.model_dump(mode="json", exclude_none=True),
        "language": paths.language if columns.origins["instruction"] else [],
        "cameras": {camera.role: _camera(camera, paths) for camera in cameras if not camera.is_depth},
        "depth": {camera.role: _camera(camera, paths) for camera in cameras if camera.is_depth},
        "fields": {},
        "decode": {},
        "filters": {},
        "state": _expressions(embodiment.state, state, "observation.state"),
        "action": _expressions(embodiment.action, action, "action"),
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


def _expressions(space: SpaceSpec | None, recorded: RecordedVector | None, path: str) -> dict[str, str]:
    if recorded:
        return recorded.expressions(path)
    return space.slices(path) if space else {}


def _camera(camera: Camera, paths: FieldPaths) -> dict[str, Any]:
    scale = {"metres_per_unit": camera.metres_per_unit} if camera.metres_per_unit else {}
    return {
        "key": paths.cameras[camera.column],
        "channels": "rgb" if camera.column in paths.rgb else camera.channels,
        **scale,
    }


def free_name(name: str, taken: Mapping[str, Any] | set[str]) -> str:
    """Return `name` if it is not in `taken`; otherwise append underscores until it is free."""
    while name in taken:
        name += "_"
    return name
