"""Compare with `tensorflow-datasets`: it writes a dataset, both read it, and the values must be equal.

Features that it can write but not read are compared with the written values.
"""

import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.readers.reader import plan
from pipelines.readers.rlds import example, features
from pipelines.readers.rlds.reader import RldsReader
from schemas.errors import SourceError
from schemas.source import RawEpisode
from tests.makers import nested, write_rlds


@pytest.fixture(scope="module", autouse=True)
def oracle() -> None:
    pytest.importorskip("tensorflow_datasets", reason="the oracle is the extra 'rlds'")


Rng = np.random.Generator
INTEGERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
FLOATS = ["float16", "float32", "float64"]
KEYS = ["state", "image", "clip_function_input/base", "a.b", "x y", "é", "depth_", "ragged", "value", "shape"]
TEXTS = ["", "pick up the cup", "żółw 🐢 \x00", "日本語\n" * 40]


@dataclass(frozen=True)
class Node:
    """One random feature: how tfds declares it, and a value to write."""

    feature: Any
    value: Callable[[Rng], Any]
    is_image: bool = False
    children: "Mapping[str, Node] | None" = None


def numbers(rng: Rng, dtype: str, shape: tuple[int, ...]) -> Any:
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype in INTEGERS:
        info = np.iinfo(dtype)
        edges = np.array([info.min, info.min + 1, 0, 1, 127, info.max - 1, info.max], dtype)
        drawn = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        return np.where(rng.random(shape) < 0.5, rng.choice(edges, shape), drawn)
    edges = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 6e-8, 65504, 1 / 3])
    mixed = np.where(rng.random(shape) < 0.3, rng.choice(edges, shape), rng.normal(size=shape))
    if dtype == "bfloat16":
        import ml_dtypes

        return mixed.astype(ml_dtypes.bfloat16)
    return mixed.astype(dtype)


def texts(rng: Rng, shape: tuple[int, ...]) -> Any:
    return np.array(TEXTS, object)[rng.integers(0, len(TEXTS), shape)]


def tensor(dtype: str, shape: tuple[int | None, ...], encoding: str = "none") -> Node:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    kind = {"string": np.str_, "bfloat16": tf.bfloat16}.get(dtype) or np.dtype(dtype).type
    feature = tfds.features.Tensor(shape=shape, dtype=kind, encoding=encoding)

    def value(rng: Rng) -> Any:
        known = tuple(int(rng.integers(0, 4)) if d is None else d for d in shape)
        return texts(rng, known) if dtype == "string" else np.asarray(numbers(rng, dtype, known))

    return Node(feature, value)


def image(encoding: str, dtype: str, channels: int) -> Node:
    import tensorflow_datasets as tfds

    shape = (2, 3, channels)
    feature = tfds.features.Image(shape=shape, dtype=np.dtype(dtype).type, encoding_format=encoding)
    return Node(feature, lambda rng: np.asarray(numbers(rng, dtype, shape)), is_image=True)


def video() -> Node:
    import tensorflow_datasets as tfds

    feature = tfds.features.Video(shape=(None, 2, 3, 3), encoding_format="png")
    return Node(feature, lambda rng: list(rng.integers(0, 255, (rng.integers(0, 3), 2, 3, 3), np.uint8)), is_image=True)


def simple(name: str) -> Node:
    import tensorflow_datasets as tfds

    match name:
        case "text":
            return Node(tfds.features.Text(), lambda rng: str(rng.choice(TEXTS)))
        case "label":
            return Node(tfds.features.ClassLabel(num_classes=300), lambda rng: int(rng.integers(0, 300)))
        case _:
            box = np.array([0.1, 0.2, 1 / 3, 1.0])
            return Node(tfds.features.BBoxFeature(), lambda rng: box * rng.random())


def sequence(inner: Node, length: int | None = None) -> Node:
    import tensorflow_datasets as tfds

    feature = tfds.features.Sequence(inner.feature, length=length)

    def value(rng: Rng) -> Any:
        return [inner.value(rng) for _ in range(rng.integers(0, 4) if length is None else length)]

    return Node(feature, value, inner.is_image, inner.children)


def tree(children: Mapping[str, Node]) -> Node:
    import tensorflow_datasets as tfds

    feature = tfds.features.FeaturesDict({key: child.feature for key, child in children.items()})
    return Node(feature, lambda rng: {k: c.value(rng) for k, c in children.items()}, children=children)


DIMS = st.integers(1, 3)
SHAPES = st.lists(DIMS, max_size=3).map(tuple)
PLAIN = st.builds(tensor, st.sampled_from(["bool", "string", *INTEGERS, *FLOATS]), SHAPES)
# tf.io.decode_raw does not support uint32, so tfds cannot read it encoded
RAW = st.sampled_from(["bool", "bfloat16", *INTEGERS, *FLOATS]).filter("uint32".__ne__)
ENCODED = st.builds(tensor, RAW, SHAPES, st.sampled_from(["bytes", "zlib"]))
DYNAMIC = st.builds(
    tensor, RAW, st.lists(DIMS | st.none(), min_size=1, max_size=3).map(tuple), st.sampled_from(["bytes", "zlib"])
)
IMAGES = st.sampled_from(
    [("jpeg", "uint8", 3), ("jpeg", "uint8", 1), ("png", "uint8", 4), ("png", "uint16", 1), ("png", "float32", 1)]
).map(lambda kind: image(*kind))
SIMPLE = st.sampled_from(["text", "label", "box"]).map(simple)
LEAVES = PLAIN | ENCODED | IMAGES | SIMPLE
# tfds cannot read sequences whose items have different shapes
SEQUENCES = st.recursive(
    (PLAIN | ENCODED | IMAGES | SIMPLE).map(sequence), lambda inner: inner.map(sequence), max_leaves=3
)


def trees(nodes: st.SearchStrategy[Node], *, least: int, most: int) -> st.SearchStrategy[Node]:
    return st.dictionaries(st.sampled_from(KEYS), nodes, min_size=least, max_size=most).map(tree)


NODES = LEAVES | DYNAMIC | SEQUENCES | st.builds(video)
STEPS = trees(NODES | trees(NODES, least=1, most=3) | trees(LEAVES, least=1, most=2).map(sequence), least=2, most=6)
UNSIZED = st.builds(
    tensor, st.sampled_from(["string", *INTEGERS, *FLOATS]), st.sampled_from([(None,), (None, 2), (2, None)])
)
METADATA = trees(
    NODES | UNSIZED | PLAIN.map(lambda node: sequence(node, 2)) | trees(NODES, least=1, most=2), least=0, most=4
)


def written(folder: Path, steps: Node, metadata: Node, lengths: list[int], *, seed: int, shards: int = 1) -> list[Any]:
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(seed)
    episodes = [{"steps": [steps.value(rng) for _ in range(n)], "meta": metadata.value(rng)} for n in lengths]
    declared = {"steps": tfds.features.Dataset(steps.feature), "meta": metadata.feature}
    write_rlds(folder, episodes, declared, shards=shards)
    return episodes


def read(folder: Path) -> list[RawEpisode]:
    reader = RldsReader(str(folder))
    found = [episode for ref in plan(reader.files()) for episode in reader.read(ref)]
    assert all(isinstance(episode, RawEpisode) for episode in found), found
    return found  # type: ignore[return-value]


def skipping(node: Node) -> Any:
    """Return decoders that make tfds leave images encoded."""
    import tensorflow_datasets as tfds

    if node.children is not None:
        return {key: below for key, child in node.children.items() if (below := skipping(child))}
    return tfds.decode.SkipDecoding() if node.is_image else None


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    else:
        yield ".".join(path), value


def plain(value: Any) -> str:
    """Format a value so that NaN, -0.0 and every digit can be compared."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, memoryview | str):
        return repr(value.encode() if isinstance(value, str) else bytes(value))
    if isinstance(value, np.ndarray | np.generic):
        wide = value.astype(np.float32) if value.dtype.name == "bfloat16" else value
        return plain(wide.tolist())
    return repr(value)


def plain_tensor(value: Any) -> tuple[str, str]:
    """Return a tensor of tfds as (dtype, values)."""
    name = value.dtype.name.replace("bfloat16", "float32")
    return name, plain(value.to_list() if hasattr(value, "to_list") else value.numpy())


def assert_equal_to_tfds(folder: Path, steps: Node, metadata: Node) -> None:
    import tensorflow_datasets as tfds

    decoders = {"steps": skipping(steps), "meta": skipping(metadata)}
    theirs = tfds.builder_from_directory(str(folder)).as_dataset(
        split="train", decoders={key: below for key, below in decoders.items() if below}, shuffle_files=False
    )
    ours = read(folder)
    assert len(ours) == len(theirs)
    for mine, their in zip(ours, theirs, strict=True):
        columns = {path: nested(column) for path, column in mine.steps.items()}
        dtypes = {path: getattr(getattr(c, "values", c), "dtype", None) for path, c in mine.steps.items()}
        assert mine.n_steps() == len(list(their["steps"]))
        for t, step in enumerate(their["steps"]):
            found = {path: plain_tensor(value) for path, value in leaves(step)}
            assert {path: plain(column[t]) for path, column in columns.items()} == {p: v for p, (_, v) in found.items()}
            assert all(str(dtypes[path] or "string") == dtype for path, (dtype, _) in found.items())
        stored = {path: plain_tensor(value)[1] for path, value in leaves(their["meta"], ("meta",))}
        assert {path: plain(value) for path, value in mine.metadata.items()} == stored


DATASETS = st.tuples(
    STEPS, METADATA, st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 9999), st.integers(1, 3)
)
Dataset = tuple[Node, Node, list[int], int, int]


def check(dataset: Dataset) -> None:
    steps, metadata, lengths, seed, shards = dataset
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), steps, metadata, lengths, seed=seed, shards=shards)
        assert_equal_to_tfds(Path(folder), steps, metadata)


@given(DATASETS)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_any_features_read_like_tfds(dataset: Dataset) -> None:
    check(dataset)


@pytest.mark.slow
@given(DATASETS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_many_more_features_read_like_tfds(dataset: Dataset) -> None:
    check(dataset)


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(lambda: sequence(tensor("int16", (None,), "zlib")), id="items of unequal length"),
        pytest.param(lambda: sequence(sequence(tensor("float32", (2, None, None), "bytes"))), id="of unequal shapes"),
        pytest.param(lambda: sequence(tensor("uint8", (2,)), 3), id="a sequence of fixed length in a step"),
        pytest.param(lambda: sequence(sequence(tensor("int64", ()), 2)), id="of fixed length in one of any length"),
        pytest.param(lambda: tensor("uint32", (2, 2), "zlib"), id="encoded uint32"),
    ],
)
def test_what_tfds_writes_but_cannot_read_is_read_as_written(node: Callable[[], Node], tmp_path: Path) -> None:
    odd = node()
    episodes = written(tmp_path, tree({"a": odd, "b": tensor("int32", ())}), tree({"a": odd}), [3, 0, 1], seed=5)
    for mine, episode in zip(found := read(tmp_path), episodes, strict=True):
        assert plain(nested(mine.steps["a"])) == plain([step["a"] for step in episode["steps"]])
        assert plain(mine.metadata["meta.a"]) == plain(episode["meta"]["a"])
    assert [episode.n_steps() for episode in found] == [3, 0, 1]


def test_float64_is_what_tfds_left_of_it(tmp_path: Path) -> None:
    steps = tree({"a": tensor("float64", ()), "b": tensor("float64", (), "bytes")})
    episode = written(tmp_path, steps, tree({}), [4], seed=1)[0]
    found = read(tmp_path)[0].steps
    given = np.array([[step["a"], step["b"]] for step in episode["steps"]])
    assert plain(found["a"]) == plain(given[:, 0].astype(np.float32).astype(np.float64))
    assert plain(found["b"]) == plain(given[:, 1])


def test_a_video_is_a_ragged_image_with_the_shape_of_a_frame(tmp_path: Path) -> None:
    written(tmp_path, tree({"v": video()}), tree({}), [1], seed=0)
    (field,) = RldsReader(str(tmp_path)).fields
    assert (field.kind, field.shape, field.ragged, field.encoding) == ("image", (2, 3, 3), 1, "png")


# --- features.json ---


def tensor_json(dtype: str = "float32", shape: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    return {"pythonClassName": "x.Tensor", "tensor": {"shape": {"dimensions": shape}, "dtype": dtype, **more}}


def rlds_json(steps: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    below = {"sequence": {"feature": {"featuresDict": {"features": steps}}}}
    return {"featuresDict": {"features": {"steps": below, **metadata}}}


def load(declared: Any) -> tuple[features.ExampleFeature, ...]:
    return features.load(declared if isinstance(declared, str | bytes) else json.dumps(declared), "features.json")


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("", "not a features.json"),
        (b"\xff\xfe", "not a features.json"),
        ("[" * 100_000, "not a features.json"),
        ("[]", "not a features.json"),
        ({}, "no dataset 'steps'"),
        ({"type": "x.FeaturesDict", "content": {}}, "no dataset 'steps'"),
        ({"featuresDict": {"features": {"action": tensor_json()}}}, "no dataset 'steps'"),
        ({"featuresDict": {"features": {"steps": tensor_json()}}}, "no dataset 'steps'"),
        (
            rlds_json({"a": {"pythonClassName": "lab.Quaternion", "jsonFeature": {}}}),
            "a: feature lab.Quaternion is not supp",
        ),
        (rlds_json({"a": {"pythonClassName": "tfds.Audio", "audio": {}}}), "a: feature tfds.Audio is not supported"),
        (
            rlds_json({"a": tensor_json(shape=(-1,))}),
            r"a: a tensor of shape \[None\] has unknown lengths that are not stored",
        ),
        (rlds_json({"a": tensor_json("string", (-1,))}), "has unknown lengths"),
        (rlds_json({"a": tensor_json("no_such")}), "not a features.json"),
        (rlds_json({"a": tensor_json("O", encoding="bytes")}), "a tensor of O with encoding 'bytes' is not supported"),
        (rlds_json({"a": tensor_json("bfloat16")}), "a tensor of bfloat16 with encoding 'none' is not supported"),
        (rlds_json({"a": tensor_json(encoding="gzip")}), "encoding 'gzip' is not supported"),
        (rlds_json({"a": tensor_json(shape=(1 << 40, 1 << 40))}), "too large"),
        (rlds_json({"a": tensor_json(shape=(10**30,), encoding="zlib")}), "too large"),
        (
            rlds_json({"a.b": tensor_json(), "a": {"featuresDict": {"features": {"b": tensor_json()}}}}),
            "the same path a.b",
        ),
    ],
)
def test_a_wrong_features_json_says_why(declared: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        load(declared)
    assert (caught.value.reason, caught.value.file) == ("bad_features", "features.json")


# --- records that contradict features.json ---


def decode(declared: Mapping[str, Any], stored: Mapping[str, Any], key: str = "steps/a") -> Any:
    leaf = next(leaf for leaf in load(rlds_json(**declared)) if leaf.key == key)
    values = example.parse(memoryview(example.encode(stored)))
    return leaf.decode(values) if leaf.field.per_step else leaf.decode_metadata(values)


SEQUENCE = {"sequence": {"feature": tensor_json()}}
TEXT: dict[str, Any] = {"text": {}}
ZIPPED = tensor_json(shape=(2,), encoding="zlib")
ANY_SHAPE = tensor_json("uint8", (-1, 2, -1), encoding="bytes")
FULL = {"a": ANY_SHAPE}


@pytest.mark.parametrize(
    ("declared", "stored", "words"),
    [
        (
            {"a": tensor_json(shape=(7,))},
            {"steps/a": np.array([1] * 8, np.float32)},
            r"8 stored values do not fit the shape \[7\]",
        ),
        ({"a": tensor_json(shape=(0,))}, {"steps/a": np.array([], np.float32)}, r"do not fit the shape \[0\]"),
        (
            {"a": tensor_json("int8")},
            {"steps/a": np.array([1], np.float32)},
            "declares integers, but the record contains floats",
        ),
        ({"a": tensor_json()}, {"steps/b": np.array([1], np.float32)}, "the record has no 'steps/a'"),
        (
            {"a": SEQUENCE},
            {"steps/a/ragged_flat_values": np.array([1], np.float32)},
            "has no 'steps/a/ragged_row_lengths_0'",
        ),
        ({"a": ZIPPED}, {"steps/a": [b"not zlib"]}, "does not fit"),
        ({"a": ZIPPED}, {"steps/a": [zlib.compress(bytes(8))[:-5]]}, "ends early"),
        ({"a": ZIPPED}, {"steps/a": [zlib.compress(bytes(1 << 24))]}, "zlib tensor: more than 8 bytes"),
        ({"a": ZIPPED}, {"steps/a": [zlib.compress(bytes(4))]}, "does not fit"),
        (FULL, {"steps/a/value": [bytes(4)], "steps/a/shape": np.array([1, 2])}, "do not belong to the stored values"),
        (FULL, {"steps/a/value": [bytes(6)], "steps/a/shape": np.array([1, 3, 2])}, r"stored shape \(1, 3, 2\)"),
        (FULL, {"steps/a/value": [bytes(4)], "steps/a/shape": np.array([-1, 2, 1])}, r"stored shape \(-1, 2, 1\)"),
        (FULL, {"steps/a/value": [b""], "steps/a/shape": np.array([0, 2, 1 << 62])}, "does not fit|more than"),
        (FULL, {"steps/a/value": [b""], "steps/a/shape": np.array([1 << 40, 2, 0])}, "the tensors: more than"),
    ],
)
def test_a_record_that_contradicts_features_json_says_which_field(
    declared: dict[str, Any], stored: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceError, match=rf"^a: .*({words})") as caught:
        decode({"steps": declared}, stored)
    assert caught.value.reason in {"contradicts_features", "too_large"}


@pytest.mark.parametrize("lengths", [[-1, 3], [1 << 62] * 4, [1], [2, 2], [1 << 63 - 1, 2]])
def test_row_lengths_that_do_not_add_up_are_refused(lengths: list[int]) -> None:
    stored = {"steps/a/ragged_flat_values": np.array([1, 2][: 0 if len(lengths) == 4 else 2], np.float32)}
    with pytest.raises(SourceError, match="a: the row lengths do not add up"):
        decode({"steps": {"a": SEQUENCE}}, {**stored, "steps/a/ragged_row_lengths_0": np.array(lengths, np.int64)})


@pytest.mark.parametrize("texts", [[], [b"a", b"b"]])
def test_one_value_per_episode_means_one(texts: list[bytes]) -> None:
    with pytest.raises(SourceError, match=r"task: expected one value per episode, got"):
        decode({"steps": {"a": TEXT}, "task": TEXT}, {"task": texts}, "task")


def test_a_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(SourceError, match="task: not UTF-8"):
        decode({"steps": {"a": TEXT}, "task": TEXT}, {"task": [b"\xff"]}, "task")


def test_an_optional_value_may_be_missing() -> None:
    assert decode({"steps": {"a": TEXT}, "score": tensor_json(optional=True)}, {}, "score") is None


def test_many_small_bombs_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAX_INFLATED", 1000)
    steps = {"a": tensor_json("uint8", (300,), encoding="zlib")}
    assert decode({"steps": steps}, {"steps/a": [zlib.compress(bytes(300))] * 3}).shape == (3, 300)
    with pytest.raises(SourceError, match="more than"):
        decode({"steps": steps}, {"steps/a": [zlib.compress(bytes(300))] * 4})


# --- fuzz ---

SMALL = st.integers(-2, 5) | st.sampled_from([-(2**63), 2**63 - 1, 2**62, 2**40])
HELD = (
    st.lists(SMALL, max_size=5).map(lambda values: np.array(values, np.int64))
    | st.lists(st.floats(width=32), max_size=5).map(lambda values: np.array(values, np.float32))
    | st.lists(st.binary(max_size=9) | st.binary(max_size=9).map(zlib.compress), max_size=3)
)
DECLARED = [
    tensor_json(),
    tensor_json("uint64", (2,)),
    tensor_json("string", (2, 1)),
    tensor_json("int16", (2, -1), encoding="zlib"),
    tensor_json("bfloat16", (2,), encoding="bytes"),
    ANY_SHAPE,
    TEXT,
    {"image": {"shape": {"dimensions": [2, 2, 3]}}},
]
FUZZED = load(
    rlds_json(
        {
            f"{level}{i}": node
            for i, leaf in enumerate(DECLARED)
            for level, node in enumerate(
                [leaf, {"sequence": {"feature": leaf}}, {"sequence": {"feature": {"sequence": {"feature": leaf}}}}]
            )
        },
        **{
            f"m{i}": leaf
            for i, leaf in enumerate([*DECLARED, tensor_json(shape=(-1,)), {"sequence": {"feature": ANY_SHAPE}}])
        },
    )
)
SUFFIXES = ["", "/value", "/shape", "/ragged_flat_values", "/ragged_row_lengths_0", "/ragged_row_lengths_1"]
SUFFIXES += [f"/value{suffix}" for suffix in SUFFIXES[3:]] + ["/shape/ragged_flat_values"]


@given(st.sampled_from(FUZZED), st.fixed_dictionaries(dict.fromkeys(SUFFIXES, HELD)), st.data())
@settings(max_examples=600)
def test_any_stored_values_raise_only_source_errors(
    leaf: features.ExampleFeature, held: dict[str, Any], data: st.DataObject
) -> None:
    record = bytearray(example.encode({leaf.key + suffix: values for suffix, values in held.items()}))
    if data.draw(st.booleans()):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    try:
        values = example.parse(memoryview(record))
        column = leaf.decode(values) if leaf.field.per_step else leaf.decode_metadata(values)
    except SourceError:
        return
    if leaf.field.per_step:
        assert len(nested(column)) == len(column)


WORDS = ["featuresDict", "features", "steps", "sequence", "feature", "tensor", "image", "video", "shape", "dimensions"]
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just([]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WORDS, "dtype", "encoding", "text", "description"]), inner, max_size=3)
    ),
)


@given(JSON, st.sampled_from([lambda declared: declared, lambda declared: rlds_json({"a": declared})]))
@settings(max_examples=300)
def test_any_json_is_features_or_a_source_error(declared: Any, wrap: Callable[[Any], Any]) -> None:
    with suppress(SourceError):
        load(wrap(declared))
