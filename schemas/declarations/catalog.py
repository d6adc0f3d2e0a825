"""Find and load declarations: by name among those in the package, or from a file or folder."""

from functools import cache
from os.path import relpath
from pathlib import Path
from typing import Any

from schemas.declarations import robots, spec, toml
from schemas.declarations.robots import Robot
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.tables import EmbodimentSpec
from schemas.errors import SpecError, did_you_mean

HERE = Path(__file__).parents[1]
DECLARATION = "oxe_spec.toml"  # the file name of an exported dataset's declaration
UNDECLARED = (  # datasets of Open X-Embodiment whose actions are not documented anywhere
    *("bridge_data_msr", "conq_hose_manipulation", "eth_agent_affordances", "io_ai_tech", "mimic_play"),
    *("plex_robosuite", "robo_ai_u_r5e", "spoc", "tidybot", "usc_cloth_sim_converted_externally_to_rlds"),
    *("utokyo_saytap_converted_externally_to_rlds", "vima_converted_externally_to_rlds"),
)


def dataset_names() -> tuple[str, ...]:
    """List the datasets declared in the package."""
    return tuple(sorted(path.stem for path in (HERE / "datasets").glob("*.toml")))


def dataset(target: str) -> DatasetSpec:
    """Load a declaration: a packaged one by its name or alias, a TOML file, or a folder with an `oxe_spec.toml`."""
    if target in dataset_names():  # even if there is a folder with this name
        return _packaged(target)
    path = Path(target)
    if _is_alias(target):
        return _packaged(str(name_of(target)))
    if path.is_dir():
        below = sorted(path.glob(f"*/{DECLARATION}"))
        path = below[0] if len(below) == 1 and not (path / DECLARATION).is_file() else path / DECLARATION
        if not path.is_file():
            raise SpecError(f"{target}: no {DECLARATION} in this folder; name a declaration and use --source {target}")
    elif path.suffix != ".toml":
        if path.is_file():
            raise SpecError(f"{target}: is not a declaration; expected a .toml file")
        if target in UNDECLARED:
            fix = "its actions are not documented; write a declaration (docs/add-a-dataset.md)"
            raise SpecError(f"no declaration for the Open X-Embodiment dataset '{target}': {fix}")
        raise SpecError(f"unknown dataset '{target}'{did_you_mean(target, dataset_names())}")
    elif not path.is_file():
        raise SpecError(f"{target}: no such file")
    return _load(path)


def name_of(word: str) -> str | None:
    """Return the packaged declaration with this name or alias, if any; case and punctuation do not matter.

    >>> name_of("QT-Opt")
    'kuka'
    """
    if "/" in word:  # a path
        return None
    return word if word in dataset_names() else _aliases().get(_alphanumeric(word))


def _is_alias(target: str) -> bool:
    """Whether a word is an alias and not a file or a folder with a declaration."""
    path = Path(target)
    return name_of(target) is not None and not any(
        (path.is_file(), (path / DECLARATION).is_file(), *path.glob(f"*/{DECLARATION}"))
    )


@cache
def _packaged(name: str) -> DatasetSpec:
    return _load(HERE / "datasets" / f"{name}.toml")


@cache
def _aliases() -> dict[str, str]:
    """Return the name of the packaged declaration for each alias, without the aliases that several datasets share."""
    datasets: dict[str, list[str]] = {}
    for name in dataset_names():
        dataset_spec = _packaged(name)
        for other in {_alphanumeric(other) for other in (name, dataset_spec.tfds_name or name, *dataset_spec.aliases)}:
            datasets.setdefault(other, []).append(name)
    datasets |= {_alphanumeric(name): [name] for name in dataset_names()}
    return {other: names[0] for other, names in datasets.items() if len(names) == 1}


def _alphanumeric(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def _load(path: Path) -> DatasetSpec:
    return spec.load(
        toml.read(path),
        where=str(path),
        robot=lambda name: robot(name, beside=path.parent),
        like=lambda name: _tables(name, path.parent, seen=(path.resolve(),)),
        folder=path.parent,
    )


def _tables(name: str, beside: Path, *, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read the tables of the declaration `name`, to which the key `like` of a declaration in `beside` refers."""
    path = HERE / "datasets" / f"{name}.toml" if name in dataset_names() else beside / name
    if path.resolve() in seen:
        raise SpecError(f"{seen[0]}: like: '{name}' refers back to this file")
    if path.suffix != ".toml" or not path.is_file():
        raise SpecError(f"{seen[0]}: like: no declaration '{name}'{did_you_mean(name, dataset_names())}")
    tables = spec.merged(
        toml.read(path),
        where=str(path),
        like=lambda other: _tables(other, path.parent, seen=(*seen, path.resolve())),
    )
    return tables if name in dataset_names() else _relative_to(beside, tables, path.parent)


def _relative_to(beside: Path, tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `tables` with its file names made relative to `beside`; in `tables` they are relative to `folder`."""
    rewritten, source = dict(tables), tables.get("source")
    name = tables.get("embodiment")
    if isinstance(name, str) and name not in embodiment_names():
        rewritten["embodiment"] = relpath(folder / name, beside)
    calibration = tables.get("calibration")
    if isinstance(calibration, str):
        rewritten["calibration"] = relpath(folder / calibration, beside)
    elif isinstance(calibration, dict):
        rewritten["calibration"] = {arm: relpath(folder / str(file), beside) for arm, file in calibration.items()}
    uri = source.get("uri") if isinstance(source, dict) else None
    if isinstance(uri, str) and "://" not in uri and not Path(uri).is_absolute():
        rewritten["source"] = {**tables["source"], "uri": relpath(folder / uri, beside)}
    return rewritten


def embodiment_names() -> tuple[str, ...]:
    """List the embodiments declared in the package."""
    return tuple(sorted(path.stem for path in (HERE / "embodiments").glob("*.toml")))


def source_of(target: str, dataset_spec: DatasetSpec) -> str | None:
    """Return the URI of the recordings of `dataset(target)`; a relative `uri` is joined to the declaration's folder."""
    path, uri = Path(target), dataset_spec.source.uri
    if target in dataset_names() or _is_alias(target) or (uri and ("://" in uri or Path(uri).is_absolute())):
        return uri
    folder = path if path.is_dir() else path.parent
    return str(folder / uri) if uri else target if path.is_dir() else None


def embodiment(name: str, *, beside: Path = HERE) -> EmbodimentSpec:
    """Load an embodiment: a packaged one by name, or a TOML file by its path relative to the folder `beside`."""
    return robot(name, beside=beside).embodiment


def robot(name: str, *, beside: Path = HERE) -> Robot:
    """Load an embodiment like `embodiment`, with what its file says about recordings of the robot."""
    known = embodiment_names()
    path = HERE / "embodiments" / f"{name}.toml" if name in known else beside / name
    if name not in known and (path.suffix != ".toml" or not path.is_file()):
        raise SpecError(f"unknown embodiment '{name}'{did_you_mean(name, known)}")
    return robots.load(toml.read(path), where=str(path))


@cache
def known_robots() -> tuple[Robot, ...]:
    """Load the packaged embodiments that say how recordings of the robot are stored, in the order of their names."""
    return tuple(one for one in map(robot, embodiment_names()) if one.recorded)
