"""The names of the files in a published dataset."""

import re
from dataclasses import dataclass

DATA, INDEX, META = "data", "index", "meta"
MANIFEST = "meta/manifest.json"
EPISODES = "meta/episodes.parquet"
EPISODE_INDEX = "meta/episodes.idx"
QUARANTINE = "meta/quarantine.parquet"
STATS = "meta/stats.json"
RUNS = "meta/runs.jsonl"
LOCK = "meta/lock"  # locked while a conversion writes
LEDGER = "meta/ledger"  # folder with the records of an unfinished conversion
PENDING = "meta/pending"  # folder with files of the dataset that are not at their place while a command replaces them
IDENTITY = "meta/ledger/identity.json"
VERIFICATION = "meta/verification.json"
CHECKS = "meta/checks.parquet"
SCRATCH = "scratch-"  # prefix of folders in `meta`, in which machines exchange partial statistics
UNFINISHED = ("tmp-", SCRATCH)  # prefixes of files and folders that a killed process may leave


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaFile:
    """A file in `meta/` that may be added or changed after publishing. The manifest therefore has no digest of it."""

    place: str
    of_content: bool  # whether it depends on the data; if so, an append removes it


META_FILES = (
    MetaFile(place=STATS, of_content=True),
    MetaFile(place=VERIFICATION, of_content=True),
    MetaFile(place=CHECKS, of_content=True),
    MetaFile(place=RUNS, of_content=False),
)
DATA_FILE = re.compile(rf"{DATA}/[^/\\]+\.parquet")


def data_file(name: str) -> str:
    """Return the path of the Parquet file of a shard."""
    return f"{DATA}/{name}.parquet"


def index_file(data: str) -> str:
    """Return the path of a data file's index.

    >>> index_file("data/train-00000-of-00001.parquet")
    'index/train-00000-of-00001.idx'
    """
    return data.replace(DATA, INDEX, 1).removesuffix(".parquet") + ".idx"


def shard_of(data: str) -> str:
    """Return the name of the shard of a data file.

    >>> shard_of("data/train-00000-of-00001.parquet")
    'train-00000-of-00001'
    """
    return data.removeprefix(f"{DATA}/").removesuffix(".parquet")


def files_of(name: str) -> tuple[str, str]:
    """Return the paths of the data file of a shard and of its index."""
    data = data_file(name)
    return data, index_file(data)


def pending(name: str) -> str:
    """Return where a file is while it is not at its place.

    >>> pending("meta/episodes.parquet")
    'meta/pending/meta/episodes.parquet'
    """
    return f"{PENDING}/{name}"
