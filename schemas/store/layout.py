"""Where everything lies in a published dataset."""

import re

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

OURS = r"data/[^/]+\.parquet|index/[^/]+\.idx|meta/[^/]+\.(parquet|json|jsonl)|(data|index|meta)/tmp-[0-9a-f]+"
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
