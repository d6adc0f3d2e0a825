"""Describe the declared datasets for `oxe datasets list`, `oxe datasets show` and docs/datasets.md."""

from collections.abc import Sequence
from typing import Any

from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import ViewError
from schemas.spaces import Space
from schemas.views.views import view, view_names

EXPLAINED = ("openvla", "octo", "eef_delta")  # for these views, the page explains why a dataset lacks them
HEAD = """# Datasets

The datasets with a declaration in `schemas/datasets/`. `oxe datasets show NAME` prints the entry of one dataset, and
`oxe datasets check NAME --source URI` compares its declaration with the files. Conventions are `unknown` if the sources
disagree; Hz and episodes are empty if they are not documented. To add a dataset, see
[add-a-dataset.md](add-a-dataset.md). `UPDATE_GOLDEN=1 pytest tests/docs` writes this page.
"""


def all_specs() -> list[DatasetSpec]:
    """Load all shipped declarations; those of the demo come last."""
    names = sorted(catalog.dataset_names(), key=lambda name: name.startswith("demo_"))
    return [catalog.dataset(name) for name in names]


def row(spec: DatasetSpec) -> dict[str, Any]:
    """Return the entry of one dataset for `oxe datasets list`."""
    return {
        "name": spec.name,
        "robot": spec.embodiment.robot,
        "control_hz": spec.control_hz,
        "episodes": spec.size.episodes,
        "cameras": list(spec.cameras),
        "views": list(view_names(spec)),
    }


def details(spec: DatasetSpec) -> dict[str, Any]:
    """Return the declaration of one dataset and its views.

    Each view has its Space and that of its states or, if it is unavailable, the reason.
    """
    names = sorted({*view_names(spec), *spec.views, *EXPLAINED})
    return {"name": spec.name, "spec": spec.to_json(), "views": {name: _view(spec, name) for name in names}}


def _view(spec: DatasetSpec, name: str) -> dict[str, Any]:
    try:
        viewed = view(spec, name)
        state = {"state_space": viewed.state_space.to_json()} if viewed.state_space else {}
        return {"space": viewed.space.to_json(), **state}
    except ViewError as error:
        return {"unavailable": str(error).partition("': ")[2]}


def page() -> str:
    """Return the content of docs/datasets.md."""
    specs = all_specs()
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
    """Return the description of one dataset in Markdown."""
    lines = [f"## {spec.name}", "", spec.description, ""]
    lines += [f"- {what}: {text}" for what, text in _facts(spec).items() if text]
    lines += ["", "Known problems:", "", *(f"- {line}" for line in spec.errata)] if spec.errata else []
    return "\n".join(lines)


def _facts(spec: DatasetSpec) -> dict[str, str]:
    """Return what is known about a dataset, by topic."""
    size, source = spec.size, spec.source
    counts = (
        (size.episodes, "{:,} episodes"),
        (size.kept, "{:,} after filters"),
        (size.transitions, "{:,} steps in OpenVLA's statistics"),
        (size.gib, "{:g} GiB"),
    )
    cameras = {**spec.cameras, **{f"{role} depth": depth for role, depth in spec.depth.items()}}
    rates = "control rate unknown" if spec.control_hz is None else f"{spec.control_hz:g} Hz"
    own = {name: spec.view_state_space(name) for name, shown in spec.views.items() if shown.state}
    missing = {name: shown["unavailable"] for name in EXPLAINED if "unavailable" in (shown := _view(spec, name))}
    return {
        "also named": ", ".join(sorted({*spec.aliases, spec.tfds_name or spec.name} - {spec.name})),
        "robot": f"{spec.embodiment.robot}; {spec.embodiment.controller}; {spec.embodiment.morphology}; {rates}",
        "source": ", ".join(filter(None, (source.uri and f"`{source.uri}`", source.mirror and f"`{source.mirror}`"))),
        "size": ", ".join(form.format(count) for count, form in counts if count is not None),
        "action": describe_space(spec.action_space) + (f"; derived: {spec.derived}" if spec.derived else ""),
        "state": describe_space(spec.state_space) if spec.state_space else "none",
        "cameras": ", ".join(
            f"{role} `{camera.key}`" + (" (BGR)" if camera.channels == "bgr" else "")
            for role, camera in cameras.items()
        ),
        "instruction": ", ".join(f"`{key}`" for key in spec.language_keys),
        "outcome": f"`{spec.success.key}`" if spec.success else "",
        "filters": ", ".join(f"{name} (`{condition.key}`)" for name, condition in spec.filters.items()),
        "views": ", ".join(view_names(spec)),
        "states of views": "; ".join(f"{name}: {describe_space(space)}" for name, space in own.items() if space),
        "unavailable views": "; ".join(f"{name}: {why}" for name, why in missing.items()),
        "licence": spec.license or "",
        "homepage": spec.homepage or "",
    }


def describe_space(space: Space) -> str:
    """Return the dimensions of a Space, grouped by unit and mode, and its conventions.

    >>> describe_space(catalog.dataset("language_table").action_space)
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
