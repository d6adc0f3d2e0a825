"""Export to LeRobot with videos, against PyAV alone (decode, convert, encode, frame by frame)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from harness import HERE, Side, Trial, arguments, at_least, compare, generate, publish, run_side, table

EPISODES = 28  # number of episodes of set B
GOAL = 0.8  # frames per second of CPU time, relative to the plain loop
SETTINGS = {"h264": {"preset": "medium"}, "av1": {"preset": "12", "svtav1-params": "lp=1"}}


def dataset(data: Path) -> Path:
    """Convert the first episodes of set B, if that is not done yet."""
    from pipelines.convert.convert import convert
    from pipelines.convert.records import Options
    from schemas.declarations import catalog

    out, spec = data / "export_source", catalog.dataset(str(HERE / "set_b.toml"))
    convert(spec, out, source=str(data / "bench_b/1.0.0"), options=Options(limit=EPISODES))
    return out


def _frames(path: Path) -> Iterator[list[bytes]]:
    """Return the encoded images of each camera."""
    from schemas.store.dataset import open_dataset

    opened = open_dataset(path)
    for camera in opened.cameras:
        yield [
            opened.frame(i, t, [camera])[camera] or b"" for i in range(len(opened)) for t in range(opened.where(i)[2])
        ]


def plain(data: Path, codec: str) -> Trial:
    """Encode the same frames with the same settings, without any other output."""
    import os
    from fractions import Fraction

    import av
    from av.video.reformatter import ColorRange, VideoReformatter

    os.environ["SVT_LOG"] = "1"
    cameras = list(_frames(data / "export_source"))
    encoder = {"h264": "libx264", "av1": "libsvtav1"}[codec]

    def work() -> int:
        frames = 0
        for images in cameras:
            decoder, planes = av.CodecContext.create("mjpeg", "r"), VideoReformatter()
            decoder.thread_count = 1
            with av.open(str(data / "plain.mp4"), "w") as container:
                stream = container.add_stream(encoder, 5, options={"g": "2", "crf": "30", **SETTINGS[codec]})
                stream.height, stream.width, stream.pix_fmt = 256, 256, "yuv420p"
                stream.codec_context.thread_count = 1
                for image in images:
                    (frame,) = decoder.decode(av.Packet(image))
                    frame = planes.reformat(frame, format="yuv420p", dst_color_range=ColorRange.MPEG, threads=1)
                    frame.pts, frame.time_base, frame.pict_type = frames, Fraction(1, 5), 0
                    container.mux(stream.encode(frame))
                    frames += 1
                container.mux(stream.encode())
        return frames

    return Trial(work=work)


def export(data: Path, codec: str) -> Trial:
    """Export with all checks: episodes, numbers, statistics, videos with every frame compared, and metadata."""
    from pipelines.beam import run  # noqa: F401 - so that the import is not measured
    from pipelines.export.plan import ExportOptions
    from pipelines.export.run import export as work
    from schemas.store.dataset import open_dataset

    out, opened = data / "export_out", open_dataset(data / "export_source")
    shutil.rmtree(out, ignore_errors=True)
    asked = ExportOptions(format="lerobot", version="3.0", video=codec)
    return Trial(work=lambda: work(opened, out, asked).steps * len(opened.cameras))


SIDES: dict[str, Side] = {"plain": plain, "export": export}

if __name__ == "__main__":
    args = arguments(__doc__ or "")
    if args.side:
        run_side(args, SIDES)
    else:
        generate(args.data)
        dataset(args.data)
        rows = []
        for codec in SETTINGS:
            costs = compare(__file__, args, codec, sides=list(SIDES))
            frames = costs["plain"].answer
            assert frames == costs["export"].answer, "the sides encode different numbers of frames"
            for side, cost in costs.items():
                ratio = costs["plain"].cpu_s / cost.cpu_s
                row = f"{cost.cpu_s:.2f}", f"{1000 * cost.cpu_s / frames:.2f}", f"{cost.rss_mb:.0f}", f"{ratio:.2f}"
                rows.append((codec, side, *row, at_least(ratio, GOAL) if side == "export" else ""))
        for name in ("export_source", "export_out"):
            shutil.rmtree(args.data / name)
        (args.data / "plain.mp4").unlink()
        publish(
            "export",
            args,
            "# Exporting to LeRobot with videos\n",
            table(("codec", "side", "CPU s", "CPU ms a frame", "peak RSS MB", "of the plain loop", "goal"), rows),
            f"The first {EPISODES} episodes of set B (see convert.md): 2240 JPEG frames of 256x256 from two cameras.\n"
            "Both sides use crf 30, a key frame every second frame and one thread: for H.264 libx264 with preset\n"
            "medium, for AV1 SVT-AV1 with preset 12. The plain loop only decodes, converts the range of the planes\n"
            "and encodes. The export also checks every episode's hash, writes all numbers, takes statistics of\n"
            "numbers and sampled frames, and measures how close every encoded frame is to its source: x264\n"
            "reports that itself, the output of SVT-AV1 is decoded for it.\n",
            packages=("av", "numpy", "pyarrow"),
        )
