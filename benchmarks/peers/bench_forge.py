"""Convert the same RLDS with forge-robotics, which needs a separate environment; `--forge` is its Python.

Create it with `python3.11 -m venv FORGE` and
`FORGE/bin/pip install 'forge-robotics[rlds,lerobot,video]==0.2.0' 'tensorflow-cpu==2.21.*' pillow`.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import HERE, Side, Trial, arguments, compare, generate, publish, run_side, table

FORGE = "OXE_TOOLS_BENCH_FORGE"  # environment variable for the other environment's Python
FILES, EPISODES = 2, 28  # part of set B, because forge is slow


def prepare(data: Path, _: str) -> Trial:
    """Write set F, the first files of set B."""
    return Trial(work=lambda: _write(data))


def _write(data: Path) -> None:
    whole, folder = data / "bench_b/1.0.0", data / "bench_f/1.0.0"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(whole / "features.json", folder / "features.json")
    files = sorted(whole.glob("*.tfrecord-*"))[:FILES]
    for number, path in enumerate(files):
        shutil.copyfile(path, folder / f"bench_f-train.tfrecord-{number:05d}-of-{FILES:05d}")
    info = json.loads((whole / "dataset_info.json").read_text())
    split = info["splits"][0]
    split["shardLengths"] = split["shardLengths"][:FILES]
    (folder / "dataset_info.json").write_text(json.dumps(info | {"name": "bench_f"}))


def ours(data: Path, _: str) -> Trial:
    """Convert to our format."""
    from pipelines.beam import run  # noqa: F401 - so that the import is not measured
    from pipelines.convert.convert import convert
    from schemas.declarations import catalog

    spec, out = catalog.dataset(str(HERE / "set_b.toml")), _emptied(data)
    source = str(data / "bench_f/1.0.0")
    return Trial(work=lambda: convert(spec, out, source=source), answer=lambda _: _found(out, "raw.action"))


def ours_lerobot(data: Path, _: str) -> Trial:
    """Convert, and export to LeRobot v3 with forge's settings: x264's preset medium, crf 23, its default GOP."""
    from pipelines.beam import run  # noqa: F401 - so that the import is not measured
    from pipelines.convert.convert import convert
    from pipelines.export.plan import ExportOptions
    from pipelines.export.run import export
    from schemas.declarations import catalog
    from schemas.store.dataset import open_dataset

    spec, out = catalog.dataset(str(HERE / "set_b.toml")), _emptied(data)
    unified, source = data / "unified", str(data / "bench_f/1.0.0")
    shutil.rmtree(unified, ignore_errors=True)
    asked = ExportOptions(format="lerobot", version="3.0", video="h264", crf=23, gop=250)

    def work() -> None:
        convert(spec, unified, source=source)
        export(open_dataset(unified), out / "lerobot", asked)

    return Trial(work=work, answer=lambda _: _found(out / "lerobot", "raw.action"))


def forge_rlds(data: Path, _: str) -> Trial:
    """Convert to RLDS again, forge's fastest output with images."""
    return _forge(data, "rlds")


def forge_lerobot(data: Path, _: str) -> Trial:
    """Convert to LeRobot v3: Parquet for the numbers, one H.264 video per episode and camera."""
    return _forge(data, "lerobot-v3")


def _forge(data: Path, target: str) -> Trial:
    import tensorflow_datasets  # noqa: F401 - so that the import is not measured
    from forge.config.models import ConversionConfig  # type: ignore[import-not-found]
    from forge.convert.converter import Converter  # type: ignore[import-not-found]

    out = _emptied(data)
    converter = Converter(ConversionConfig(fps=5.0, fail_on_error=True))
    column = "action" if target == "lerobot-v3" else None
    return Trial(
        work=lambda: converter.convert(source=data / "bench_f/1.0.0", output=out, target_format=target),
        answer=lambda result: _found(out, column) | {"steps": result.total_frames},
    )


def _emptied(data: Path) -> Path:
    out = data / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def _found(out: Path, column: str | None) -> dict[str, float | str | int]:
    """Return the size of the output and a hash of its actions."""
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    result: dict[str, float | str | int] = {"mb": round(size / 1e6, 1)}
    if column:
        import numpy as np
        import pyarrow.parquet as pq

        rows = [
            row
            for path in sorted((out / "data").rglob("*.parquet"))
            for row in pq.read_table(path, columns=[column])[column].to_pylist()
        ]
        result |= {"steps": len(rows), "actions": hashlib.sha256(np.array(rows, np.float32).tobytes()).hexdigest()}
    return result


SIDES: dict[str, Side] = {side.__name__: side for side in (prepare, ours, ours_lerobot, forge_rlds, forge_lerobot)}


def main() -> None:
    """Compare all sides, or run one of them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--forge", default=os.environ.get(FORGE))
    known, sys.argv[1:] = parser.parse_known_args()
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    if not known.forge:
        raise SystemExit(f"name the Python of forge's environment: --forge PYTHON, or {FORGE}")
    generate(args.data)
    prepare(args.data, "F").work()
    pythons = dict.fromkeys(("forge_rlds", "forge_lerobot"), known.forge)
    costs = compare(__file__, args, "F", sides=["ours", "ours_lerobot", *pythons], pythons=pythons)
    mine = costs["ours"]
    assert mine.answer["actions"] == costs["forge_lerobot"].answer["actions"], "the actions differ"
    assert mine.answer["actions"] == costs["ours_lerobot"].answer["actions"], "the actions differ"
    assert {cost.answer["steps"] for cost in costs.values()} == {mine.answer["steps"]}, "the numbers of steps differ"
    rows = [
        (
            side,
            f"{cost.cpu_s:.3f}",
            f"{cost.wall_s:.3f}",
            f"{cost.rss_mb:.0f}",
            str(cost.answer["mb"]),
            f"{cost.cpu_s / mine.cpu_s:.0f}",
            f"{costs['forge_lerobot'].cpu_s / costs['ours_lerobot'].cpu_s:.2f}" if side == "ours_lerobot" else "",
        )
        for side, cost in costs.items()
    ]
    for name in ("out", "bench_f", "unified"):
        shutil.rmtree(args.data / name)
    listed = subprocess.run([known.forge, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    versions = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    names = ("forge-robotics", "tensorflow", "tensorflow-datasets", "av", "pyarrow")
    theirs = ", ".join(f"{name} {versions.get(name, '-')}" for name in names)
    publish(
        "peers",
        args,
        "# Other converters, on the same RLDS\n",
        table(
            ("side", "CPU s", "wall s", "peak RSS MB", "output MB", "CPU over ours", "forge_lerobot's CPU over this"),
            rows,
        ),
        NOTES.format(files=FILES, episodes=EPISODES, steps=mine.answer["steps"], theirs=theirs),
        packages=("numpy", "pyarrow"),
    )
    return None


NOTES = """\
The source: the first {files} files of set B (see convert.md): {episodes} episodes, {steps} steps, 2 cameras of 256x256,
JPEG. Imports are not counted. The sides do not do the same work:

- ours: `convert`. The image bytes are copied; every field of the source is kept; index, content hashes, digests and
  manifest are part of it.
- forge_rlds: forge's RLDS to RLDS, the faster of the two outputs tried (MCAP and RoboDM were not). tensorflow-datasets
  decodes every image and it is encoded again as a JPEG of quality 95: the images are not those of the source. It keeps
  images, state, action, reward and flags.
- forge_lerobot: forge's RLDS to LeRobot v3 with its defaults, its intended use: every image is decoded and encoded
  in an H.264 video (libx264, crf 23, preset medium), one per episode and camera. It keeps images, state and action.
- ours_lerobot: `convert` and then `export lerobot --crf 23 --gop 250`, both counted: what forge_lerobot does, with the
  same codec settings. All fields are kept, hashes and statistics are exact, and every frame is measured.

forge's RLDS reader always decodes and cannot copy images: the ratios compare the cost of a conversion with either
tool, not two implementations of the same work. Between ours_lerobot and forge_lerobot the goal is a
third of the CPU; it is missed. With these settings libx264 alone takes about 2 ms a frame on either side, so no
exporter of the same frames can be three times as cheap; only the rest can be saved (export.md).

Neither of forge's outputs has this source's instructions, which are in the steps (`meta/tasks.parquet` says
"default"). The actions of ours, ours_lerobot and forge_lerobot are equal bit for bit, and all have the same number of
steps.

In forge's environment: {theirs}.
"""

if __name__ == "__main__":
    main()
