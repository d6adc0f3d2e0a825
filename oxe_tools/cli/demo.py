"""The command `oxe demo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oxe_tools.cli.console import Json, Overwrite, numbers, print_json, print_table, say

if TYPE_CHECKING:
    from oxe_tools.demo.demo import LabResult


def demo(
    *,
    out: Annotated[Path, typer.Option(help="The folder for the recordings and the datasets.")] = Path("oxe_demo"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert the recordings of three labs to one schema.

    The labs record the same motion in their own conventions. The converted datasets are verified and compared.

    \b
    Example: oxe demo --out oxe_demo
    """
    from oxe_tools.demo.demo import SHOWN_STEP, VIEW
    from oxe_tools.demo.demo import demo as run

    labs = run(out, overwrite=overwrite, say=lambda text: say(text, err=True))
    if as_json:
        print_json(
            {
                lab.spec.name: {**lab.report.to_json(), "max_error": lab.error, "verified": lab.verification.ok}
                for lab in labs
            }
        )
    else:
        _show_labs(labs, out, step=SHOWN_STEP, view=VIEW)


def _show_labs(labs: "Sequence[LabResult]", out: Path, *, step: int, view: str) -> None:
    """Print one step of the motion as the labs recorded it and in the common view."""
    before = []
    for lab in labs:
        for i, (path, values) in enumerate(lab.before()):
            head = (lab.spec.name, f"{lab.spec.control_hz:g}") if i == 0 else ("", "")
            before.append((*head, path, numbers(values)))
    title = f"Before: step {step} of one motion, as each lab recorded it"
    print_table(["lab", "Hz", "recorded as", "values"], before, title=title, padded=True)
    say()
    columns = ("lab", *(dim.name for dim in labs[0].viewed.action_space.dims), "largest error of motion")
    after = [(lab.spec.name, *(f"{x:.4f}" for x in lab.after()), f"{lab.error:.1e}") for lab in labs]
    title = f"After: the same step in the view '{view}' (metres, radians, base frame, gripper 1 = open)"
    print_table(columns, after, title=title, padded=True)
    episodes = sum(lab.report.kept for lab in labs)
    values, images = (sum(getattr(lab.verification, name) for lab in labs) for name in ("numbers", "images"))
    say()
    say(f"Verified against the recordings: {episodes} episodes, {values} numbers and {images} images equal.")
    first = labs[0].spec.name
    say("Try next:")
    say(f"  oxe inspect {out}/recordings/{first}")
    say(f"  oxe verify {out}/datasets/{first}")
    say(f"  oxe export rlds {out}/datasets/{first} --view {view} --out {out}/rlds/{first}")
    say(f"  python -c \"import oxe_tools; print(oxe_tools.open_dataset('{out}/datasets/{first}').episode(0).action)\"")
