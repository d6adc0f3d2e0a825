"""The functions that the commands `oxe mix` call; they find locks and mixture files by name."""

from os.path import relpath
from pathlib import Path

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.progress import Progress, silent
from pipelines.mix.drift import drift, lock_differences
from pipelines.mix.make import make_lock
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
    """Lock a mixture, write the lock, and return its summary; raises UsageError if the lock exists."""
    spec = mixture(target)
    file = Path(target) if target.endswith(".toml") else None
    path = out or (file.with_suffix(".lock") if file else Path(f"{spec.name.rpartition('/')[2]}.lock"))
    if path.exists() and not overwrite and not dry_run:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it, or check it with 'oxe mix verify'")
    beside = path.absolute().parent
    spec = _rebased(spec, file.absolute().parent, beside) if file and beside != file.absolute().parent else spec
    locked, table = make_lock(spec, beside=beside, data=data, engine=engine, progress=progress)
    if not dry_run:
        locks.write(path, locked, table)
    return summary(locked, table, path=None if dry_run else path)


def stats(target: str) -> MixtureSummary:
    """Return the summary of a lock."""
    path, _ = find_lock(target)
    return summary(*locks.read(path), path=path)


def verify(target: str, *, deep: bool = False) -> list[str]:
    """List what has changed since a lock, including the TOML file next to it."""
    path, file = find_lock(target)
    locked, _ = locks.read(path)
    spec = mixture(str(file)) if file else None
    return drift(locked, beside=path.absolute().parent, spec=spec, deep=deep)


def diff(first: str, second: str) -> list[str]:
    """List the differences between two locks."""
    (ours, ours_table), (theirs, theirs_table) = (locks.read(find_lock(target)[0]) for target in (first, second))
    return lock_differences(ours, theirs, tables=(ours_table, theirs_table))


def sample(target: str, draws: int, *, seed: int | None = None) -> DrawTest:
    """Draw from a lock, and test the number of draws of each stratum against its share."""
    locked, _ = locks.read(find_lock(target)[0])
    return sample_of(locked, draws, seed=seed)


def find_lock(target: str) -> tuple[Path, Path | None]:
    """Return the path of the lock that `target` names, and the path of the TOML file next to it, or None."""
    path = Path(target).with_suffix(".lock") if target.endswith(".toml") else Path(target)
    file = path.with_suffix(".toml")
    return path, file if file.is_file() else None


def _rebased(spec: MixtureSpec, old: Path, new: Path) -> MixtureSpec:
    """Rewrite URIs that are relative to the folder `old`, so that they are relative to the folder `new`."""
    rebased = {
        name: source.model_copy(update={"uri": Path(relpath(old / source.uri, new)).as_posix()})
        for name, source in spec.sources.items()
        if source.uri and is_local(source.uri) and not Path(source.uri).is_absolute()
    }
    return spec.model_copy(update={"sources": {**spec.sources, **rebased}})
