"""Count the images that their EXIF data turn, and note them: they are stored and used as their pixels are."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.episode import Frames
from schemas.exif import TURNED, orientation


def count_turned(frames: Frames) -> int:
    """Count the images of a camera that a viewer would turn or mirror."""
    return sum(frame is not None and orientation(frame) in TURNED for frame in frames)


def turned_notes(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note for each camera with images that their EXIF data turn."""
    counts: Counter[str] = Counter()
    for file in manifest["files"]:
        counts.update(file.get("turned", {}))
    for camera, count in sorted(counts.items()):
        yield (
            f"camera {camera}: {count} images have an EXIF orientation that a viewer would apply; they are stored, and "
            "used in training, as their pixels are; turn the source's images if that is wrong"
        )
