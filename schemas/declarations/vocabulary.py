"""The words that declarations may use, and the functions they stand for: closed tables, nothing is looked up elsewhere.

The name of a function is its word. `schemas/declarations/hooks/` has those that a single dataset needs.
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
