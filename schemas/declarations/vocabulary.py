"""The ops and decoders that declarations may use, by the name of their function, and their versions.

The folder `hooks/` has the ops that only one dataset needs. A hook in your own package needs no version here, because
its file is hashed instead.
"""

from collections.abc import Callable

from schemas.declarations import grippers, ops
from schemas.declarations.hooks import droid, gnm, kuka, language_table
from schemas.declarations.ops import Steps
from schemas.source import Array, Column

ARRAY_OPS: dict[str, Callable[..., Array]] = {
    op.__name__: op
    for op in (
        ops.clip,
        ops.invert,
        ops.scale,
        ops.shift,
        ops.deg2rad,
        ops.wrap_pi,
        ops.constant,
        ops.permute,
        grippers.binarize_gripper,
        grippers.rel2abs_gripper,
        ops.quat_xyzw_to_euler,
        ops.rotvec_to_euler,
        ops.matrix_to_euler,
        ops.euler_zxy_to_euler,
        ops.added_rotvec_to_euler,
        ops.pose_to_delta,
        droid.to_wrist_frame,
    )
}
STEP_OPS: dict[str, Callable[..., Steps]] = {
    op.__name__: op
    for op in (
        ops.drop_first,
        ops.drop_last,
        ops.stride,
        ops.drop_noops,
        ops.abs_to_delta,
        ops.achieved_delta,
        ops.relabel_achieved_delta,
        droid.drop_idle,
        gnm.waypoint_local,
    )
}
DECODERS: dict[str, Callable[[Column], Column]] = {
    decoder.__name__: decoder for decoder in (kuka.zlib_float32, language_table.code_points)
}

# Raise the version of an op when its result changes by more than rounding. The locks and statistics of all views that
# use the op then count as outdated.
VERSIONS: dict[str, int] = {
    "clip": 1,
    "invert": 1,
    "scale": 1,
    "shift": 1,
    "deg2rad": 1,
    "wrap_pi": 1,
    "constant": 1,
    "permute": 1,
    "binarize_gripper": 1,
    "rel2abs_gripper": 1,
    "quat_xyzw_to_euler": 1,
    "rotvec_to_euler": 1,
    "matrix_to_euler": 1,
    "euler_zxy_to_euler": 1,
    "added_rotvec_to_euler": 1,
    "pose_to_delta": 1,
    "to_wrist_frame": 1,
    "drop_first": 1,
    "drop_last": 1,
    "stride": 1,
    "drop_noops": 1,
    "abs_to_delta": 1,
    "achieved_delta": 1,
    "relabel_achieved_delta": 1,
    "drop_idle": 1,
    "waypoint_local": 1,
    "zlib_float32": 1,
    "code_points": 1,
}
