"""`oxe check`: rules of numbers relative to converting the same set, and image rules relative to bare decoding.

Conventions are judged on 64 episodes, whatever the size of the dataset, and `mixed_convention` on all.
"""

import shutil
from pathlib import Path

from harness import HERE, Trial, arguments, at_most, compare, generate, publish, run_side, table

NUMBERS_GOAL, IMAGES_GOAL = 0.1, 1.3
LETTER = "B"


def convert(data: Path, letter: str) -> Trial:
    """Convert the set, in this process."""
    from pipelines.convert.convert import convert as run
    from schemas.declarations import catalog

    out = data / "check_out"
    shutil.rmtree(out, ignore_errors=True)
    spec = catalog.dataset(str(HERE / f"set_{letter.lower()}.toml"))
    source = data / f"bench_{letter.lower()}" / "1.0.0"
    return Trial(work=lambda: run(spec, out, source=str(source)).kept)


def numbers(data: Path, letter: str, *, is_whole: bool = False) -> Trial:
    """Apply the rules of numbers, and search for duplicates."""
    from pipelines.checks import images
    from pipelines.checks.run import check_datasets
    from pipelines.checks.settings import Settings
    from pipelines.checks.thresholds import Thresholds

    dataset = converted(data, letter)
    off = {check.rule: {"severity": "off"} for check in images.CHECKS}
    if not is_whole:
        off |= {rule: {"severity": "off"} for rule in ("convention", "mixed_convention")}
    settings = Settings(rules=Thresholds.model_validate(off))
    return Trial(work=lambda: check_datasets([dataset], settings=settings, recompute=True).episodes)


def conventions(data: Path, letter: str) -> Trial:
    """Judge conventions too."""
    return numbers(data, letter, is_whole=True)


def pictures(data: Path, letter: str) -> Trial:
    """Apply the image rules to every frame."""
    from pipelines.beam.combine import combine
    from pipelines.beam.engine import THIS_PROCESS
    from pipelines.checks import images
    from pipelines.checks.about import about
    from pipelines.checks.parts import parts_of
    from pipelines.checks.passes import ImagesPass
    from pipelines.checks.thresholds import Thresholds

    dataset = converted(data, letter)
    known = about(dataset, rules=Thresholds())
    work = ImagesPass(rules=frozenset(check.rule for check in images.CHECKS), all_frames=True)

    def run() -> int:
        combine(work, parts_of(dataset, known), engine=THIS_PROCESS, shared=dataset.folder)
        return int(dataset.manifest["steps"])

    return Trial(work=run)


def decode(data: Path, letter: str) -> Trial:
    """Decode every frame at the same reduced scale, and do nothing with it."""
    import simplejpeg

    from pipelines.checks.images.read import SIDE

    dataset = converted(data, letter)

    def run() -> int:
        for i in range(len(dataset)):
            path, row, length = dataset.where(i)
            file = dataset.file(path)
            for number in range(len(dataset.columns.cameras)):
                for step in range(row, row + length):
                    simplejpeg.decode_jpeg(
                        file.image(step, number), fastdct=True, fastupsample=True, min_height=SIDE, min_width=SIDE
                    )
        return int(dataset.manifest["steps"])

    return Trial(work=run)


def converted(data: Path, letter: str):  # type: ignore[no-untyped-def] # noqa: ANN201 - imports are part of a side
    """Open the converted set; convert it if it is missing."""
    from pipelines.convert.convert import convert as run
    from schemas.declarations import catalog
    from schemas.store.dataset import open_dataset

    out = data / f"checked_{letter.lower()}"
    source = data / f"bench_{letter.lower()}" / "1.0.0"
    if not (out / "meta/manifest.json").exists():
        run(catalog.dataset(str(HERE / f"set_{letter.lower()}.toml")), out, source=str(source))
    return open_dataset(out)


def main() -> None:
    """Run the sides, and print the table."""
    args = arguments(__doc__ or "")
    sides = {"convert": convert, "numbers": numbers, "conventions": conventions, "images": pictures, "decode": decode}
    if args.side:
        return run_side(args, sides)
    generate(args.data)
    cost = compare(__file__, args, LETTER, sides=list(sides))
    by_numbers = cost["numbers"].cpu_s / cost["convert"].cpu_s
    by_images = cost["images"].cpu_s / cost["decode"].cpu_s
    rows = [
        ("convert", f"{cost['convert'].cpu_s:.2f}", f"{cost['convert'].rss_mb:.0f}", "", ""),
        (
            "rules of numbers",
            f"{cost['numbers'].cpu_s:.3f}",
            f"{cost['numbers'].rss_mb:.0f}",
            f"{by_numbers:.3f} of convert",
            at_most(by_numbers, NUMBERS_GOAL),
        ),
        (
            "the same with conventions",
            f"{cost['conventions'].cpu_s:.3f}",
            f"{cost['conventions'].rss_mb:.0f}",
            f"{cost['conventions'].cpu_s / cost['convert'].cpu_s:.3f} of convert",
            "",
        ),
        ("decode every frame, reduced", f"{cost['decode'].cpu_s:.2f}", f"{cost['decode'].rss_mb:.0f}", "", ""),
        (
            "image rules, every frame",
            f"{cost['images'].cpu_s:.2f}",
            f"{cost['images'].rss_mb:.0f}",
            f"{by_images:.2f} of decoding",
            at_most(by_images, IMAGES_GOAL),
        ),
    ]
    head = f"# oxe check\n\n{__doc__}\nSet {LETTER}.\n"
    publish(
        "check",
        args,
        head,
        table(("side", "CPU s", "memory MB", "ratio", "goal"), rows),
        packages=("numpy", "pyarrow", "simplejpeg"),
    )
    return None


if __name__ == "__main__":
    main()
