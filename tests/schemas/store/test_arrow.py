import json
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features
from datasets import Image as ImageFeature
from datasets.features.features import generate_from_arrow_type
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from schemas.errors import SpecError
from schemas.source import Column, Field, Ragged
from schemas.spaces import Space
from schemas.store import arrow
from schemas.store.arrow import IMAGE, Camera, Layout, MaterializedView, arrow_type, from_arrow, to_arrow
from schemas.views.views import Viewed
from tests.schemas.makers import equal_columns, make_episode, make_space

DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)
SHAPES = st.lists(st.integers(1, 3), max_size=3)


@st.composite
def columns(draw: st.DrawFn) -> tuple[Field, Column]:
    """Draw a field of any kind, shape and depth, and a column of 0 to 4 steps of it."""
    kind = draw(st.sampled_from(["number", "number", "text", "bytes", "image"]))
    ragged, shape = draw(st.integers(0, 3)), draw(SHAPES)
    open_shape = kind == "number" and draw(st.booleans()) and shape
    field = Field(
        path="a/b.c",
        kind=kind,  # type: ignore[arg-type]
        dtype=draw(st.sampled_from(DTYPES)) if kind == "number" else "object",
        shape=(None, *shape[1:]) if open_shape else () if kind == "text" else (*shape,),
        ragged=ragged,
    )
    count, levels = draw(st.integers(0, 4)), []
    for _ in range(arrow.list_levels(field)):
        levels.append(np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int64))
        count = int(levels[-1].sum())
    values: Any
    if kind == "number":
        inner = () if open_shape else field.shape
        values = draw(npst.arrays(field.dtype, (count, *inner), elements=npst.from_dtype(np.dtype(field.dtype))))
    else:
        texts = st.text(max_size=4).map(str.encode)
        values = draw(st.lists(texts if kind == "text" else st.binary(max_size=4), min_size=count, max_size=count))
    return field, Ragged(values, tuple(levels)) if levels else values


def steps_of(column: Column, start: int, stop: int) -> Column:
    """Select steps by walking the lengths, level by level."""
    if not isinstance(column, Ragged):
        return column[start:stop]
    lengths, a, b = [], start, stop
    for level in column.lengths:
        lengths.append(level[a:b])
        a, b = int(level[:a].sum()), int(level[:b].sum())
    return Ragged(column.values[a:b], tuple(lengths))


@given(columns())
def test_a_column_survives_arrow_bit_for_bit(drawn: tuple[Field, Column]) -> None:
    field, column = drawn
    array = to_arrow(column, arrow_type(field))
    assert array.type == arrow_type(field)
    assert len(array) == len(column)
    array.validate(full=True)
    assert equal_columns(from_arrow(array, field), column)


@given(columns(), st.data())
def test_a_slice_of_an_arrow_column_is_that_slice_of_the_column(
    drawn: tuple[Field, Column], data: st.DataObject
) -> None:
    field, column = drawn
    a, b = sorted(data.draw(st.lists(st.integers(0, len(column)), min_size=2, max_size=2)))
    array = to_arrow(column, arrow_type(field))
    around = pa.concat_arrays([array, array, array]).slice(len(column) + a, b - a)
    for sliced in (array.slice(a, b - a), around, around.slice(0), pa.concat_arrays([around])):
        assert equal_columns(from_arrow(sliced, field), steps_of(column, a, b))


@given(st.lists(columns(), max_size=3), st.data())
def test_columns_survive_parquet(drawn: list[tuple[Field, Column]], data: st.DataObject) -> None:
    for field, column in drawn:
        table = pa.table({"a": to_arrow(column, arrow_type(field))})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=2)
        read = pq.read_table(sink.getvalue())["a"].combine_chunks()
        merged = pa.concat_arrays(read.chunks) if isinstance(read, pa.ChunkedArray) else read
        assert equal_columns(from_arrow(merged, field), column)


def test_bytes_may_lie_in_any_buffer() -> None:
    field = Field(path="a", kind="text")
    assert from_arrow(to_arrow([memoryview(b"ab"), b""], arrow_type(field)), field) == [b"ab", b""]


@pytest.mark.parametrize("dtype", ["complex64", "bfloat16", "not a type"])
def test_numbers_that_arrow_does_not_have_are_refused_by_path(dtype: str) -> None:
    with pytest.raises(SpecError, match=f"^a.b: cannot store numbers of type {dtype}"):
        arrow_type(Field(path="a.b", kind="number", dtype=dtype))


def test_values_of_no_size_are_refused_by_path() -> None:
    with pytest.raises(SpecError, match=r"^a.b: cannot store values of shape \[2, 0\], which are empty$"):
        arrow_type(Field(path="a.b", kind="number", dtype="float32", shape=(2, 0)))


FRAMES = st.lists(st.none() | st.binary(max_size=5), max_size=5)


@given(FRAMES)
def test_a_missing_frame_is_a_null_struct(frames: list[bytes | None]) -> None:
    array = arrow.frames_to_arrow(frames)
    assert array.type == IMAGE
    assert array.to_pylist() == [None if frame is None else {"bytes": frame, "path": None} for frame in frames]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": array}), sink)
    assert pq.read_table(sink.getvalue())["image"].to_pylist() == array.to_pylist()


# The schema


EVERY_TYPE = (
    *(
        Field(path=f"{dtype}.{number}", kind="number", dtype=dtype, shape=shape, ragged=ragged, doc="a doc")
        for dtype in DTYPES
        for number, (shape, ragged) in enumerate(product(((), (3,), (2, 4), (None, 2)), (0, 1, 2)))
    ),
    Field(path="note", kind="text"),
    Field(path="blob", kind="bytes", shape=(2,)),
    Field(path="frames", kind="image", ragged=1),
)


def make_layout(**changes: Any) -> Layout:
    fields: dict[str, Any] = {
        "dataset": "toy",
        "action": make_space(),
        "state": make_space(name="state", mode="absolute"),
        "cameras": (
            Camera(leaf="image", path="observation.image", role="primary"),
            Camera(leaf="depth", path="observation.depth", is_depth=True, metres_per_unit=0.001),
        ),
        "raw": EVERY_TYPE,
        "metadata": (Field(path="episode_metadata.path", kind="text", per_step=False),),
        "views": (MaterializedView(name="openvla", space=make_space(origin="achieved"), digest="abc"),),
        "origins": {"is_first": "is_first", "is_last": None, "timestamp": "control_hz", "instruction": "task"},
    }
    return Layout(**{**fields, **changes})


def meaning(field: pa.Field) -> dict[str, Any]:
    return dict(json.loads(field.metadata[arrow.META]))


def test_a_layout_survives_json() -> None:
    layout = make_layout()
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))).schema() == layout.schema()


def test_every_space_stands_in_its_fields_metadata_and_survives_parquet() -> None:
    layout = make_layout()
    sink = pa.BufferOutputStream()
    pq.write_table(layout.schema().empty_table(), sink)
    read = pq.read_schema(sink.getvalue())
    assert Space.from_json(meaning(read.field("action"))["space"]) == layout.action
    assert Space.from_json(meaning(read.field("observation.state"))["space"]) == layout.state
    assert Space.from_json(meaning(read.field("action.openvla"))["space"]) == layout.views[0].space
    assert meaning(read.field("action.openvla"))["digest"] == "abc"
    assert json.loads(read.metadata[arrow.META]) == {"schema_version": arrow.SCHEMA_VERSION, "dataset": "toy"}


def test_a_camera_says_where_it_is_from_and_what_it_is() -> None:
    schema = make_layout().schema()
    assert meaning(schema.field("observation.images.image")) == {"source": "observation.image", "role": "primary"}
    assert meaning(schema.field("observation.depth.depth")) == {
        "source": "observation.depth",
        "metres_per_unit": 0.001,
    }


def test_a_column_says_whether_the_source_has_it() -> None:
    schema = make_layout().schema()
    assert meaning(schema.field("is_first")) == {"source": "is_first"}
    assert schema.field("is_last").metadata is None
    assert meaning(schema.field("timestamp")) == {"source": "control_hz", "unit": "s"}
    assert meaning(schema.field("raw.note")) == {"source": "note"}
    assert meaning(schema.field("raw.int8.0")) == {"source": "int8.0", "doc": "a doc"}


def test_without_a_state_there_is_no_column_of_it() -> None:
    assert "observation.state" not in make_layout(state=None).schema().names


def test_the_huggingface_key_is_what_datasets_itself_writes() -> None:
    schema = make_layout().schema()
    built = Features({f.name: ImageFeature() if f.type == IMAGE else generate_from_arrow_type(f.type) for f in schema})
    theirs = json.loads(built.arrow_schema.metadata[b"huggingface"])
    assert json.loads(schema.metadata[b"huggingface"]) == theirs


def test_datasets_reads_the_schema_as_the_same_types_with_images() -> None:
    schema = make_layout().schema()
    features = Features.from_arrow_schema(schema)
    assert features["observation.images.image"] == ImageFeature()
    assert features["observation.depth.depth"] == ImageFeature()
    assert features.arrow_schema.remove_metadata() == pa.schema([f.remove_metadata() for f in schema])


def rows(steps: int, **changes: Any) -> list[dict[str, Any]]:
    episode = make_episode(steps, **changes)
    raw = (
        Field(path="points", kind="number", dtype="int64", ragged=1),
        Field(path="torque", kind="number", dtype="float64", shape=(2,)),
        Field(path="note", kind="text"),
    )
    layout = make_layout(raw=raw)
    view = Viewed(np.ones((max(0, steps - 1), 7), np.float32), np.arange(steps) > 0)
    batch = arrow.to_batch([episode], layout, layout.schema(), views={"openvla": [view]})
    batch.validate(full=True)
    return list(batch.to_pylist())


def test_an_episode_becomes_one_row_per_step() -> None:
    written = rows(3)
    assert [row["step_index"] for row in written] == [0, 1, 2]
    assert [row["instruction"] for row in written] == ["open the drawer", "close it", "close it"]
    assert [row["is_last"] for row in written] == [False, False, True]
    assert written[2]["raw.points"] == [4, 5]
    assert written[2]["raw.note"] == "note 2"
    assert written[0]["observation.depth.depth"] is None
    assert written[1]["observation.images.image"] == {"bytes": b"frame 1", "path": None}


def test_the_masked_steps_of_a_materialized_view_are_null() -> None:
    assert [row["action.openvla"] for row in rows(3)] == [None, [1.0] * 7, [1.0] * 7]


def test_what_the_source_does_not_have_is_null_throughout() -> None:
    nothing = dict.fromkeys(("timestamp", "is_terminal", "reward", "instruction_index"))
    for row in rows(2, **nothing, instructions=()):
        assert [row[name] for name in ("timestamp", "is_terminal", "reward", "instruction")] == [None] * 4


def test_an_episode_of_no_steps_becomes_no_rows() -> None:
    assert rows(0) == []


@given(st.lists(st.sampled_from(["", "open", "close", "é"]), min_size=1, max_size=6), st.integers(0, 3))
def test_instructions_are_found_again_in_order_of_appearance(texts: list[str], start: int) -> None:
    array = pa.array(["before"] * start + texts + ["after"]).slice(start, len(texts))
    found, index = arrow.instruction_column(array)
    assert list(found) == list(dict.fromkeys(texts))
    assert index is not None
    assert index.dtype == np.int32
    assert [found[i] for i in index] == texts


def test_no_instruction_is_found_where_there_is_none() -> None:
    assert arrow.instruction_column(pa.nulls(3, pa.string())) == ((), None)


@pytest.mark.parametrize("values", [[1.5, 2.5, 3.5], [True, False, True], [1, 2, 3]])
def test_a_slice_of_numbers_or_flags_is_read_as_it_is(values: list[Any]) -> None:
    read = arrow.optional_column(pa.array(values).slice(1))
    assert read is not None
    assert read.tolist() == values[1:]
    assert arrow.optional_column(pa.nulls(2, pa.bool_())) is None


def test_a_slice_of_vectors_is_read_as_it_is() -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(4, 3)
    array = to_arrow(numbers, pa.list_(pa.float32(), 3)).slice(1, 2)
    np.testing.assert_array_equal(arrow.vectors(array, 3), numbers[1:3])
