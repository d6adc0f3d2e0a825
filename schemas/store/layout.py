"""Where everything lies in a published dataset."""

import re
from dataclasses import dataclass

DATA, INDEX, META = "data", "index", "meta"
MANIFEST = "meta/manifest.json"
EPISODES = "meta/episodes.parquet"
QUARANTINE = "meta/quarantine.parquet"
STATS = "meta/stats.json"
RUNS = "meta/runs.jsonl"
LOCK = "meta/lock"  # held while a conversion writes
LEDGER = "meta/ledger"  # of a conversion that is not finished
IDENTITY = "meta/ledger/identity.json"
VERIFICATION = "meta/verification.json"
SCRATCH = "scratch-"  # how a folder in meta begins through which other machines hand over what they counted
UNFINISHED = ("tmp-", SCRATCH)  # how names begin that a killed process may have left


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaFile:
    """A file of `meta/` that the manifest has no digest of: it may come and change after the dataset is published."""

    place: str
    of_content: bool  # says something of the data, so an append removes it; otherwise it outlasts one


META_FILES = (
    MetaFile(place=STATS, of_content=True),
    MetaFile(place=VERIFICATION, of_content=True),
    MetaFile(place=RUNS, of_content=False),
)
DATA_FILE = re.compile(rf"{DATA}/[^/\\]+\.parquet")


def data_file(name: str) -> str:
    """Name the Parquet file of one shard."""
    return f"{DATA}/{name}.parquet"


def index_file(data: str) -> str:
    """Name the index of a data file.

    >>> index_file("data/train-00000-of-00001.parquet")
    'index/train-00000-of-00001.idx'
    """
    return data.replace(DATA, INDEX, 1).removesuffix(".parquet") + ".idx"
