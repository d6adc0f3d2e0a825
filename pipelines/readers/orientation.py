"""Turn the frames of a video as its display matrix says."""

import struct
from dataclasses import dataclass
from math import atan2, degrees
from typing import Any

import numpy as np

from schemas.errors import SourceError
from schemas.source import Array

TOLERANCE = 1.0  # degrees; FFmpeg's


@dataclass(frozen=True, slots=True)
class Orientation:
    """How the stored frames of a video are turned to show them: swap the axes, then flip them."""

    is_transposed: bool = False
    flips_columns: bool = False
    flips_rows: bool = False
    degrees: int = 0  # clockwise, for messages; a mirrored frame has an angle as well

    @classmethod
    def of(cls, frame: Any) -> "Orientation":
        """Read the orientation of a decoded frame; raise SourceError if it is not a multiple of 90 degrees.

        FFmpeg turns other frames as well, but cuts off their corners.
        """
        stored = frame.side_data.get("DISPLAYMATRIX")
        if stored is None:
            return UPRIGHT
        a, b, _, c, d = struct.unpack("=5i", bytes(stored)[:20])  # x' = a x + c y, y' = b x + d y
        if not (a or b) or not (c or d):
            return UPRIGHT
        angle = degrees(atan2(b, a)) % 360
        turn = round(angle / 90) % 4 * 90
        if min(abs(angle - turn), 360 - abs(angle - turn)) > TOLERANCE:
            message = f"the video is rotated by {angle:.0f} degrees, which is not a multiple of 90; encode it upright"
            raise SourceError(message, reason="bad_video")
        if turn in {90, 270}:
            return cls(is_transposed=True, flips_columns=c < 0, flips_rows=b < 0, degrees=turn)
        return cls(flips_columns=a < 0, flips_rows=d < 0, degrees=turn)

    def turned(self, plane: Array) -> Array:
        """Turn a plane or frame [H, W, ...]."""
        plane = plane.swapaxes(0, 1) if self.is_transposed else plane
        plane = plane[:, ::-1] if self.flips_columns else plane
        plane = plane[::-1] if self.flips_rows else plane
        return np.ascontiguousarray(plane)

    def __str__(self) -> str:
        """Return a phrase such as `rotated by 90 degrees`; empty if the frames stay as they are."""
        if self.is_transposed ^ self.flips_columns ^ self.flips_rows:
            return "mirrored"
        return f"rotated by {self.degrees} degrees" if self.degrees else ""


UPRIGHT = Orientation()
