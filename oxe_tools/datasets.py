"""What is known about the declared datasets, as text: `oxe datasets list`, `show`, and the page docs/datasets.md."""

from collections.abc import Sequence
from typing import Any

from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import ViewError
from schemas.spaces import Space
from schemas.views.views import view, view_names

ASKED = ("openvla", "octo", "eef_delta")  # views whose absence is explained everywhere
HEAD = """# Datasets

Every dataset that has a declaration in `schemas/datasets/`, as it says. This page is written by
`UPDATE_GOLDEN=1 pytest tests/docs`; `oxe datasets show NAME` prints the same for one dataset, and
`oxe datasets check NAME --source URI` compares it with the files. Where sources disagree a declaration says `unknown`;
Hz and episodes are empty where nobody tells them. To add yours, see [add-a-dataset.md](add-a-dataset.md).
"""


def listed() -> list[DatasetSpec]:
    """Load every declaration, those of the demo last."""
    names = sorted(catalog.dataset_names(), key=lambda name: name.startswith("demo_"))
    return [catalog.dataset(name) for name in names]


def row(spec: DatasetSpec) -> dict[str, Any]:
    """Sum up one dataset."""
    return {
        "name": spec.name,
        "robot": spec.embodiment.robot,
        "control_hz": spec.control_hz,
        "episodes": spec.size.episodes,
        "cameras": list(spec.cameras),
        "views": list(view_names(spec)),
    }


def details(spec: DatasetSpec) -> dict[str, Any]:
    """Tell everything about one dataset, with the Space of each view or the reason why there is none."""
    names = sorted({*view_names(spec), *spec.views, *ASKED})
    return {"name": spec.name, "spec": spec.to_json(), "views": {name: _view(spec, name) for name in names}}


def _view(spec: DatasetSpec, name: str) -> dict[str, Any]:
    try:
        return {"space": view(spec, name).space.to_json()}
    except ViewError as error:
        return {"unavailable": str(error).partition("': ")[2]}


def page() -> str:
    """Write docs/datasets.md."""
    specs = listed()
    lines = [HEAD, "By robot:", "", *by_robot(specs), "", "By name:", ""]
    lines += ["| dataset | robot | Hz | episodes | views |", "|---|---|---|---|---|"]
    for spec in specs:
        one = row(spec)
        hz = "" if spec.control_hz is None else f"{spec.control_hz:g}"
        episodes = "" if one["episodes"] is None else f"{one['episodes']:,}"
        link = f"[{spec.name}](#{spec.name.lower()})"
        lines.append(f"| {link} | {one['robot']} | {hz} | {episodes} | {', '.join(one['views'])} |")
    return "\n".join([*lines, *(f"\n{section(spec)}" for spec in specs)]) + "\n"


def by_robot(specs: Sequence[DatasetSpec]) -> list[str]:
    """Return an index in Markdown: one line per robot, with links to the sections of its datasets."""
    links: dict[str, list[str]] = {}
    for spec in specs:
        links.setdefault(spec.embodiment.robot, []).append(f"[{spec.name}](#{spec.name.lower()})")
    return [f"- **{robot}**: {', '.join(links[robot])}" for robot in sorted(links, key=str.casefold)]


def section(spec: DatasetSpec) -> str:
    """Describe one dataset in Markdown."""
    lines = [f"## {spec.name}", "", spec.description, ""]
    lines += [f"- {what}: {said}" for what, said in _facts(spec).items() if said]
    lines += ["", "Beware:", "", *(f"- {line}" for line in spec.errata)] if spec.errata else []
    return "\n".join(lines)


def _facts(spec: DatasetSpec) -> dict[str, str]:
    """Name what is known in a few words each."""
    size, source = spec.size, spec.source
    counts = (
        (size.episodes, "{:,} episodes"),
        (size.kept, "{:,} after its filters"),
        (size.transitions, "{:,} steps in OpenVLA's statistics"),
        (size.gib, "{:g} GiB"),
    )
    cameras = {**spec.cameras, **{f"{role} depth": depth for role, depth in spec.depth.items()}}
    rates = "control rate unknown" if spec.control_hz is None else f"{spec.control_hz:g} Hz"
    missing = {name: told["unavailable"] for name in ASKED if "unavailable" in (told := _view(spec, name))}
    return {
        "also named": ", ".join(sorted({*spec.aliases, spec.tfds_name or spec.name} - {spec.name})),
        "robot": f"{spec.embodiment.robot}; {spec.embodiment.controller}; {spec.embodiment.morphology}; {rates}",
        "source": ", ".join(filter(None, (source.uri and f"`{source.uri}`", source.mirror and f"`{source.mirror}`"))),
        "size": ", ".join(form.format(count) for count, form in counts if count is not None),
        "action": _told(spec.action_space) + (f"; derived: {spec.derived}" if spec.derived else ""),
        "state": _told(spec.state_space) if spec.state_space else "none",
        "cameras": ", ".join(
            f"{role} `{camera.key}`" + (" (BGR)" if camera.channels == "bgr" else "")
            for role, camera in cameras.items()
        ),
        "instruction": ", ".join(f"`{key}`" for key in spec.language_keys),
        "outcome": f"`{spec.success.key}`" if spec.success else "",
        "filters": ", ".join(f"{name} (`{told.key}`)" for name, told in spec.filters.items()),
        "views": ", ".join(view_names(spec)),
        "cannot give": "; ".join(f"{name}: {why}" for name, why in missing.items()),
        "licence": spec.license or "",
        "homepage": spec.homepage or "",
    }


def _told(space: Space) -> str:
    """Say what a vector is: its dimensions by unit and mode, and its conventions.

    >>> _told(catalog.dataset("language_table").action_space)
    'x y (m, delta); frame base'
    """
    groups: list[tuple[str, list[str]]] = []
    for dim in space.dims:
        what = f"{dim.unit}, {dim.mode}"
        if not groups or groups[-1][0] != what:
            groups.append((what, []))
        groups[-1][1].append(dim.name)
    words = [
        f"{word} {getattr(space, word)}" for word in ("frame", "rotation", "gripper") if getattr(space, word) != "none"
    ]
    return "; ".join([", ".join(f"{' '.join(names)} ({what})" for what, names in groups), *words])
