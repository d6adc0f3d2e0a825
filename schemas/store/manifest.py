"""The manifest, `meta/manifest.json`: its digest, and the digests of the files that it lists."""

import json
from collections.abc import Mapping
from typing import Any

import xxhash

from schemas.errors import DatasetError
from schemas.parsing import parse_json
from schemas.store import layout

SCHEMA_VERSION = 3
READABLE = (2, 3)  # the schema versions that can be read
END = b',\n "xxh3_128": "%s"\n}\n'


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Encode a manifest as JSON; the digest of its content is added as the last entry."""
    digest = xxhash.xxh3_128_hexdigest(json.dumps(manifest, indent=1).encode())
    return json.dumps({**manifest, "xxh3_128": digest}, indent=1).encode() + b"\n"


def is_intact(content: bytes) -> bool:
    """Whether a manifest has the digest of its own content."""
    size = len(END % (32 * b"0"))
    digest = xxhash.xxh3_128_hexdigest(content[:-size] + b"\n}").encode()
    return content[-size:] == END % digest


def decode_manifest(content: bytes, place: str, *, checked: bool = True) -> dict[str, Any]:
    """Parse a manifest. Raises DatasetError if it is damaged or has a version that cannot be read.

    If `checked` is False, its digest is not checked.
    """
    try:
        manifest: Any = parse_json(content)
    except ValueError as error:
        raise DatasetError(f"{place}: cannot be read ({error})") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version not in READABLE:
        raise DatasetError(
            f"{place}: has schema version {version}, expected {' or '.join(map(str, READABLE))}; convert the dataset "
            "again"
        )
    if checked and not is_intact(content):
        raise DatasetError(
            f"{place}: damaged (its digest does not match its content); restore it from a copy, or convert again with "
            "--overwrite"
        )
    return dict(manifest)


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest that identifies the content of a dataset; `oxe upgrade` does not change it."""
    before = manifest.get("upgraded_from")
    return str(before["xxh3_128"] if before else manifest["xxh3_128"])


def digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each file that the manifest lists, besides the data files."""
    listed = {layout.EPISODES: manifest["episodes_xxh3_128"], layout.QUARANTINE: manifest["quarantine_xxh3_128"]}
    if manifest["schema_version"] > 2:
        listed[layout.EPISODE_INDEX] = manifest["episodes_index_xxh3_128"]
    return listed | {layout.index_file(file["path"]): file["index_xxh3_128"] for file in manifest["files"]}
