"""Read a random step and its two neighbours from two cameras, undecoded: our index, ArrayRecord, Parquet row groups."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import HERE, Side, Trial, arguments, at_least, compare, fresh, generate, publish, run_side, table

SEED = 3
SAME = 50  # triples compared between the sides
GROUP = 100  # rows per row group
GOALS = {"array_record": 8.0, "array_record_plain": 8.0, "row_groups": 50.0}
COUNTS = {"ours": 20_000, "array_record": 4_000, "array_record_plain": 4_000, "row_groups": 300}  # triples per run

Triple = list[bytes]  # two cameras at t - 1, t and t + 1


def prepare(data: Path, letter: str) -> Trial:
    """Convert the set; write its images as ArrayRecord (one record per step) and as Parquet with small row groups."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from pipelines.convert.convert import convert
    from schemas.declarations import catalog
    from schemas.store.dataset import open_dataset

    root = _root(data, letter)

    def work() -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        source = data / f"bench_{letter.lower()}" / "1.0.0"
        convert(catalog.dataset(str(HERE / f"set_{letter.lower()}.toml")), root / "ours", source=str(source))
        dataset = open_dataset(root / "ours")
        writers = [
            ArrayRecordWriter(str(root / "group1.array_record"), "group_size:1"),
            ArrayRecordWriter(str(root / "plain.array_record"), "group_size:1,uncompressed"),
        ]
        for i in range(len(dataset)):
            for step in range(dataset.where(i)[2]):
                first, second = (frame or b"" for frame in dataset.frame(i, step).values())
                for writer in writers:
                    writer.write(len(first).to_bytes(4, "little") + first + second)
        for writer in writers:
            writer.close()
        _write_row_groups(root)

    return Trial(work=work)


def _write_row_groups(root: Path) -> None:
    """Write the image columns again, in row groups of 100 rows."""
    import pyarrow.parquet as pq

    from schemas.store.dataset import open_dataset

    dataset = open_dataset(root / "ours")
    columns = [camera.column for camera in dataset.columns.cameras]
    for entry in dataset.manifest["files"]:
        table = pq.read_table(root / "ours" / entry["path"], columns=columns)
        pq.write_table(
            table, root / Path(entry["path"]).name, row_group_size=GROUP, compression="none", use_dictionary=False,
            write_statistics=False,
        )  # fmt: skip


def ours(data: Path, letter: str) -> Trial:
    """Slice the images out of the data file by the index."""
    from schemas.store.dataset import open_dataset

    dataset = open_dataset(_root(data, letter) / "ours")
    cameras = dataset.cameras

    def read(i: int, step: int) -> Triple:
        return [frame or b"" for s in (step - 1, step, step + 1) for frame in dataset.frame(i, s, cameras).values()]

    return _trial(read, _picks(data, letter, count=COUNTS["ours"]))


def array_record(data: Path, letter: str) -> Trial:
    """Read three records with ArrayRecord's data source, compressed by default."""
    return _array_record(data, letter, name="group1", count=COUNTS["array_record"])


def array_record_plain(data: Path, letter: str) -> Trial:
    """Read three uncompressed records; JPEGs do not need compression."""
    return _array_record(data, letter, name="plain", count=COUNTS["array_record_plain"])


def _array_record(data: Path, letter: str, *, name: str, count: int) -> Trial:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from schemas.store.dataset import open_dataset

    dataset = open_dataset(_root(data, letter) / "ours")
    first = [0]
    for i in range(len(dataset)):
        first.append(first[-1] + dataset.where(i)[2])
    source = ArrayRecordDataSource([str(_root(data, letter) / f"{name}.array_record")])

    def read(i: int, step: int) -> Triple:
        row = first[i] + step
        images: Triple = []
        for record in (source[row - 1], source[row], source[row + 1]):  # a quarter of the CPU of one `__getitems__`
            end = 4 + int.from_bytes(record[:4], "little")
            images += [record[4:end], record[end:]]
        return images

    return _trial(read, _picks(data, letter, count=count))


def row_groups(data: Path, letter: str) -> Trial:
    """Read the one or two row groups of the three rows with pyarrow, from a memory map."""
    import pyarrow.parquet as pq

    from schemas.store.dataset import open_dataset

    dataset = open_dataset(_root(data, letter) / "ours")
    columns = [camera.column for camera in dataset.columns.cameras]
    files = {
        entry["path"]: pq.ParquetFile(_root(data, letter) / Path(entry["path"]).name, memory_map=True)
        for entry in dataset.manifest["files"]
    }

    def read(i: int, step: int) -> Triple:
        path, start, _ = dataset.where(i)
        row = start + step - 1
        groups = sorted({row // GROUP, (row + 2) // GROUP})
        rows = files[path].read_row_groups(groups, columns=columns, use_threads=False).slice(row - groups[0] * GROUP, 3)
        return [cell[name]["bytes"] for cell in rows.to_pylist() for name in columns]

    return _trial(read, _picks(data, letter, count=COUNTS["row_groups"]))


def _picks(data: Path, letter: str, *, count: int) -> list[tuple[int, int]]:
    """Choose episodes and inner steps, the same for every side."""
    manifest = json.loads((_root(data, letter) / "ours/meta/manifest.json").read_bytes())
    episodes = manifest["balance"]["kept"]
    steps = manifest["steps"] // episodes  # all episodes of a set have the same length
    rng = random.Random(SEED)  # noqa: S311 - not for security
    return [(rng.randrange(episodes), rng.randrange(1, steps - 1)) for _ in range(count)]


def _trial(read: Callable[[int, int], Triple], picks: Sequence[tuple[int, int]]) -> Trial:
    """Read some triples to compare them and to open all files, then measure the rest."""
    import xxhash

    digest = xxhash.xxh3_128_hexdigest(b"".join(image for pick in picks[:SAME] for image in read(*pick)))

    def work() -> None:
        for pick in picks:
            read(*pick)

    return Trial(work=work, answer=lambda _: digest)


def _root(data: Path, letter: str) -> Path:
    return data / f"random_{letter.lower()}"


SIDES: dict[str, Side] = {
    "ours": ours,
    "array_record": array_record,
    "array_record_plain": array_record_plain,
    "row_groups": row_groups,
}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, {**SIDES, "prepare": prepare})
    generate(args.data)
    fresh(__file__, args.data, "B", side="prepare")
    costs = compare(__file__, args, "B", sides=list(SIDES))
    assert len({cost.answer for cost in costs.values()}) == 1, "the sides read different bytes"
    each = {side: cost.cpu_s / COUNTS[side] * 1e3 for side, cost in costs.items()}
    rows = []
    for side, cost in costs.items():
        ratio = each[side] / each["ours"]
        verdict = at_least(ratio, GOALS[side]) if side in GOALS else ""
        rows.append((side, f"{each[side]:.4f}", f"{cost.wall_s / COUNTS[side] * 1e3:.4f}", f"{ratio:.1f}", verdict))
    publish(
        "random",
        args,
        "# A random step with two neighbours, two cameras, undecoded (set B)\n",
        table(("side", "CPU ms", "wall ms", "CPU over ours", "goal"), rows),
        "array_record: group_size:1, one index at a time (one __getitems__ takes four times the CPU); _plain:\n"
        "also uncompressed. row_groups: 100 rows, pyarrow, memory map.\n",
        packages=("numpy", "pyarrow", "array-record"),
    )
    return None


if __name__ == "__main__":
    main()
