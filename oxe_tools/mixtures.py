"""Mixtures for users: files and names in, plain results out."""

from os.path import relpath
from pathlib import Path

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.progress import Progress, silent
from pipelines.mix.drift import compared, drift
from pipelines.mix.make import make
from pipelines.mix.report import DrawTest, MixtureSummary, summary
from pipelines.mix.report import sample as sample_of
from schemas.errors import UsageError
from schemas.files.folder import is_local
from schemas.mixture import lock as locks
from schemas.mixture.spec import MixtureSpec, mixture


def lock(
    target: str,
    *,
    data: str | None = None,
    out: Path | None = None,
    engine: Engine = THIS_PROCESS,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> MixtureSummary:
    """Lock a mixture and write the lock, and give its summary; a lock that is there already is a UsageError."""
    spec = mixture(target)
    file = Path(target) if target.endswith(".toml") else None
    path = out or (file.with_suffix(".lock") if file else Path(f"{spec.name.rpartition('/')[2]}.lock"))
    if path.exists() and not overwrite and not dry_run:
        raise UsageError(f"{path}: exists; give --overwrite to replace it, or 'oxe mix verify' to check it")
    beside = path.absolute().parent
    spec = _moved(spec, file.absolute().parent, beside) if file and beside != file.absolute().parent else spec
    made, table = make(spec, beside=beside, data=data, engine=engine, progress=progress)
    if not dry_run:
        locks.write(path, made, table)
    return summary(made, table, path=None if dry_run else path)


def stats(target: str) -> MixtureSummary:
    """Give the summary of a lock."""
    path, _ = found_lock(target)
    return summary(*locks.read(path), path=path)


def verify(target: str, *, deep: bool = False) -> list[str]:
    """Name what has changed since a lock, the TOML file beside it included."""
    path, file = found_lock(target)
    found, _ = locks.read(path)
    spec = mixture(str(file)) if file else None
    return drift(found, beside=path.absolute().parent, spec=spec, deep=deep)


def diff(first: str, second: str) -> list[str]:
    """Say what two locks differ in."""
    (ours, ours_table), (theirs, theirs_table) = (locks.read(found_lock(target)[0]) for target in (first, second))
    return compared(ours, theirs, tables=(ours_table, theirs_table))


def sample(target: str, draws: int, *, seed: int | None = None) -> DrawTest:
    """Draw from a lock and test the counts."""
    found, _ = locks.read(found_lock(target)[0])
    return sample_of(found, draws, seed=seed)


def found_lock(target: str) -> tuple[Path, Path | None]:
    """Find the lock that a name is of, and the TOML file beside it if there is one."""
    path = Path(target).with_suffix(".lock") if target.endswith(".toml") else Path(target)
    file = path.with_suffix(".toml")
    return path, file if file.is_file() else None


def _moved(spec: MixtureSpec, here: Path, there: Path) -> MixtureSpec:
    """Lead relative URIs from another folder."""
    moved = {
        name: source.model_copy(update={"uri": Path(relpath(here / source.uri, there)).as_posix()})
        for name, source in spec.sources.items()
        if source.uri and is_local(source.uri) and not Path(source.uri).is_absolute()
    }
    return spec.model_copy(update={"sources": {**spec.sources, **moved}})
