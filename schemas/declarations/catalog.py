"""The declarations that ship with the package, and how a name, a file or a folder is turned into one."""

from functools import cache
from os.path import relpath
from pathlib import Path
from typing import Any

from schemas.declarations import spec, toml
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.tables import EmbodimentSpec
from schemas.errors import SpecError, did_you_mean

HERE = Path(__file__).parents[1]
DECLARATION = "oxe_spec.toml"  # what an exported dataset calls its own
UNDECLARED = (  # of Open X-Embodiment; nobody has published how to read their actions
    *("bridge_data_msr", "conq_hose_manipulation", "eth_agent_affordances", "io_ai_tech", "mimic_play"),
    *("plex_robosuite", "robo_ai_u_r5e", "spoc", "tidybot", "usc_cloth_sim_converted_externally_to_rlds"),
    *("utokyo_saytap_converted_externally_to_rlds", "vima_converted_externally_to_rlds"),
)


def dataset_names() -> tuple[str, ...]:
    """List the datasets declared here."""
    return tuple(sorted(path.stem for path in (HERE / "datasets").glob("*.toml")))


def dataset(target: str) -> DatasetSpec:
    """Load a declaration: a shipped one by its name or alias, a TOML file, or a folder that holds `oxe_spec.toml`."""
    if target in dataset_names():  # also where a folder, perhaps this dataset's own, has the same name
        return _shipped(target)
    path = Path(target)
    if _is_alias(target):
        return _shipped(str(name_of(target)))
    if path.is_dir():
        below = sorted(path.glob(f"*/{DECLARATION}"))
        path = below[0] if len(below) == 1 and not (path / DECLARATION).is_file() else path / DECLARATION
        if not path.is_file():
            raise SpecError(f"{target}: no {DECLARATION} in this folder; name a declaration and give --source {target}")
    elif path.suffix != ".toml":
        if path.is_file():
            raise SpecError(f"{target}: a declaration is a .toml file")
        if target in UNDECLARED:
            how = "nobody has published how to read its actions; write a declaration (docs/add-a-dataset.md)"
            raise SpecError(f"'{target}' is of Open X-Embodiment, but not declared: {how}")
        raise SpecError(f"unknown dataset '{target}'{did_you_mean(target, dataset_names())}")
    elif not path.is_file():
        raise SpecError(f"{target}: no such declaration")
    return _loaded(path)


def name_of(word: str) -> str | None:
    """Name the shipped declaration that a name or an alias means, however it is punctuated, if there is one.

    >>> name_of("QT-Opt")
    'kuka'
    """
    if "/" in word:  # a path
        return None
    return word if word in dataset_names() else _aliases().get(_plain(word))


def _is_alias(target: str) -> bool:
    """Say whether a word is an alias, also where a folder without a declaration has the same name."""
    path = Path(target)
    return name_of(target) is not None and not any(
        (path.is_file(), (path / DECLARATION).is_file(), *path.glob(f"*/{DECLARATION}"))
    )


@cache
def _shipped(name: str) -> DatasetSpec:
    return _loaded(HERE / "datasets" / f"{name}.toml")


@cache
def _aliases() -> dict[str, str]:
    """Find shipped declarations by their other names; a name that several have is nobody's."""
    found: dict[str, list[str]] = {}
    for name in dataset_names():
        declared = _shipped(name)
        for other in {_plain(other) for other in (name, declared.tfds_name or name, *declared.aliases)}:
            found.setdefault(other, []).append(name)
    found |= {_plain(name): [name] for name in dataset_names()}
    return {other: names[0] for other, names in found.items() if len(names) == 1}


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def _loaded(path: Path) -> DatasetSpec:
    return spec.load(
        toml.read(path),
        where=str(path),
        embodiment=lambda name: embodiment(name, beside=path.parent),
        like=lambda name: _tables(name, path.parent, seen=(path.resolve(),)),
    )


def _tables(name: str, beside: Path, *, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read the tables of the declaration that another one, in the folder `beside`, is like."""
    path = HERE / "datasets" / f"{name}.toml" if name in dataset_names() else beside / name
    if path.resolve() in seen:
        raise SpecError(f"{seen[0]}: like: '{name}': leads back to itself")
    if path.suffix != ".toml" or not path.is_file():
        raise SpecError(f"{seen[0]}: like: '{name}': no such declaration{did_you_mean(name, dataset_names())}")
    tables = spec.merged(
        toml.read(path),
        where=str(path),
        like=lambda other: _tables(other, path.parent, seen=(*seen, path.resolve())),
    )
    return tables if name in dataset_names() else _seen_from(beside, tables, path.parent)


def _seen_from(beside: Path, tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Rewrite the files that tables name relative to `folder`, so that they are found from `beside`."""
    moved, source = dict(tables), tables.get("source")
    named = tables.get("embodiment")
    if isinstance(named, str) and named not in _embodiments():
        moved["embodiment"] = relpath(folder / named, beside)
    uri = source.get("uri") if isinstance(source, dict) else None
    if isinstance(uri, str) and "://" not in uri and not Path(uri).is_absolute():
        moved["source"] = {**tables["source"], "uri": relpath(folder / uri, beside)}
    return moved


def _embodiments() -> list[str]:
    return sorted(path.stem for path in (HERE / "embodiments").glob("*.toml"))


def source_of(target: str, declared: DatasetSpec) -> str | None:
    """Say where the recordings of `dataset(target)` are; a relative `uri` is meant from the declaration's folder."""
    path, uri = Path(target), declared.source.uri
    if target in dataset_names() or _is_alias(target) or (uri and ("://" in uri or Path(uri).is_absolute())):
        return uri
    folder = path if path.is_dir() else path.parent
    return str(folder / uri) if uri else target if path.is_dir() else None


def embodiment(name: str, *, beside: Path = HERE) -> EmbodimentSpec:
    """Load an embodiment: one declared here by its name, or a TOML file by its path from the folder `beside`."""
    known = _embodiments()
    path = HERE / "embodiments" / f"{name}.toml" if name in known else beside / name
    if name not in known and (path.suffix != ".toml" or not path.is_file()):
        raise SpecError(f"unknown embodiment '{name}'{did_you_mean(name, known)}")
    return spec.load_embodiment(toml.read(path), where=str(path))
