"""Convert both sets; CPU time relative to copying the source's bytes and to `tensorflow-datasets` with our writer."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import HERE, Side, Trial, arguments, at_least, at_most, compare, generate, publish, run_side, table

COPY_GOALS = {"A": 5, "B": 2.5}
TFDS_GOAL = 5
CHUNK = 1 << 20  # bytes per read when copying


def ours(data: Path, letter: str) -> Trial:
    """Convert a set: images, numbers, index, digests, episode table and manifest."""
    from pipelines.convert.convert import convert
    from schemas.declarations import catalog

    spec, source = catalog.dataset(_declaration(letter)), str(_source(data, letter))
    out = _emptied(data)

    return Trial(work=lambda: convert(spec, out, source=source), answer=lambda _: _digests(out))


def copy_loop(data: Path, letter: str) -> Trial:
    """Copy the source's files with a loop of reads and writes."""
    files, out = sorted(_source(data, letter).iterdir()), _emptied(data)

    def work() -> int:
        buffer = bytearray(CHUNK)
        for path in files:
            with path.open("rb", buffering=0) as source, (out / path.name).open("wb", buffering=0) as target:
                while count := source.readinto(buffer):
                    target.write(memoryview(buffer)[:count])
        return len(files)

    return Trial(work=work)


def copy_kernel(data: Path, letter: str) -> Trial:
    """Copy the source's files inside the kernel."""
    files, out = sorted(_source(data, letter).iterdir()), _emptied(data)

    def work() -> int:
        for path in files:
            shutil.copyfile(path, out / path.name)
        return len(files)

    return Trial(work=work)


def tfds_default(data: Path, letter: str) -> Trial:
    """Feed our writer from `tensorflow-datasets`, which also caches sets under 250 MB in memory."""
    return _tfds(data, letter, interleave_cycle_length=1)


def tfds_lean(data: Path, letter: str) -> Trial:
    """Feed our writer from `tensorflow-datasets` without that cache."""
    return _tfds(data, letter, interleave_cycle_length=1, try_autocache=False)


def _tfds(data: Path, letter: str, **config: Any) -> Trial:
    """Read in the order of the files, so that the results can be compared byte for byte."""
    import tensorflow_datasets as tfds

    from pipelines.convert.binding import bind
    from pipelines.convert.parquet import ParquetShard
    from pipelines.readers.reader import plan
    from pipelines.readers.rlds.reader import RldsReader
    from schemas.declarations import catalog
    from schemas.files.folder import LocalFolder
    from schemas.source import RawEpisode

    reader = RldsReader(str(_source(data, letter)))
    binding, refs = bind(catalog.dataset(_declaration(letter)), reader.fields), plan(reader.files())
    out = _emptied(data)
    dataset = tfds.builder_from_directory(_source(data, letter)).as_dataset(
        split="train", decoders={"steps": tfds.decode.SkipDecoding()}, read_config=tfds.ReadConfig(**config)
    )

    def work() -> None:
        episodes = enumerate(tfds.as_numpy(dataset))
        for ref in refs:
            shard = ParquetShard(LocalFolder(out), ref.name, binding)
            for _ in range(ref.episodes):
                index, episode = next(episodes)
                shard.add(
                    binding.episode(RawEpisode(index=index, split=ref.split, steps=dict(_flat(episode["steps"]))))
                )
            shard.finish(ref.split)

    return Trial(work=work, answer=lambda _: _digests(out))


def _flat(steps: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Rename the columns as our reader does; byte strings become lists."""
    for name, column in steps.items():
        if isinstance(column, dict):
            yield from _flat(column, f"{prefix}{name}.")
        else:
            yield prefix + name, list(column) if column.dtype == object else column


def _declaration(letter: str) -> str:
    return str(HERE / f"set_{letter.lower()}.toml")


def _source(data: Path, letter: str) -> Path:
    return data / f"bench_{letter.lower()}" / "1.0.0"


def _emptied(data: Path) -> Path:
    out = data / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def _digests(out: Path) -> list[str]:
    """Hash the output."""
    import xxhash

    return [xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in sorted((out / "data").iterdir())]


SIDES: dict[str, Side] = {
    "ours": ours,
    "copy_loop": copy_loop,
    "copy_kernel": copy_kernel,
    "tfds_default": tfds_default,
    "tfds_lean": tfds_lean,
}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    generate(args.data)
    rows = []
    for letter, goal in COPY_GOALS.items():
        costs = compare(__file__, args, letter, sides=list(SIDES))
        mine = costs["ours"]
        assert costs["tfds_lean"].answer == costs["tfds_default"].answer == mine.answer, "the files written differ"
        verdicts = {"copy_loop": at_most(mine.cpu_s / costs["copy_loop"].cpu_s, goal)}
        verdicts |= {
            side: at_least(costs[side].cpu_s / mine.cpu_s, TFDS_GOAL) for side in ("tfds_default", "tfds_lean")
        }
        for side, cost in costs.items():
            ratio = cost.cpu_s / mine.cpu_s
            figures = (
                f"{cost.cpu_s:.3f}",
                f"{cost.wall_s:.3f}",
                f"{cost.rss_mb:.0f}",
                f"{1 / ratio:.1f}",
                f"{ratio:.1f}",
            )
            rows.append((letter, side, *figures, verdicts.get(side, "")))
    shutil.rmtree(args.data / "out")
    publish(
        "convert",
        args,
        "# Converting\n",
        table(("set", "side", "CPU s", "wall s", "peak RSS MB", "ours over it", "it over ours", "goal"), rows),
        "copy_loop: copies the source's files with a 1 MiB buffer; copy_kernel: shutil.copyfile.\n"
        "tfds_default, tfds_lean: tensorflow-datasets with SkipDecoding on the steps and our writer (see read.md);\n"
        "their files are byte for byte equal to ours, but they write no episode table and no manifest.\n",
        packages=("numpy", "pyarrow", "xxhash", "tensorflow-datasets", "tensorflow-cpu"),
    )
    return None


if __name__ == "__main__":
    main()
