"""The limits of what is read from foreign files, and the one error for what exceeds them.

A limit is compared with what a file says about itself (a shape, a header, a number of entries) before memory is taken
for it. Each is far above what recordings contain.
"""

from schemas.errors import SourceError

# bytes
COLUMN_BYTES = 1 << 30  # of one column of an episode, and of one chunk
FRAMES_BYTES = 1 << 35  # of one camera's raw frames in an episode; larger, because they are read in blocks
VALUE_BYTES = 16 << 20  # of one per-episode value
DOCUMENT_BYTES = 256 << 20  # of one file in JSON
TOML_BYTES = 4 << 20  # of one file in TOML
EPISODE_BYTES = 1 << 32  # of all numbers of an episode, and of all arrays in one file of arrays
SPARSE_BYTES = 64 << 20  # a larger array must have stored data
SPARSE_RATIO = 2000  # of declared to stored bytes of such an array; no codec packs more tightly
# counts
MAX_ROWS = 1_000_000  # of a table of episodes or tasks
MAX_STEPS = 10_000_000  # of an episode
MAX_FIELDS = 10_000  # of a source, and arrays in one file of arrays
MAX_DEPTH = 100  # levels of nesting in JSON and TOML
MAX_DIGITS = 1000  # of a number in JSON and TOML
MAX_PIXELS = 1 << 26  # of an image or a frame of a video (8,192 x 8,192); a declaration can raise it for images
DECODED_PIXELS = 1 << 27  # of an image, whatever is declared


def check_limit(count: int, limit: int, unit: str, *, where: str = "", what: str = "", raised_by: str = "") -> None:
    """Raise SourceError if a count is above its limit.

    `where` is the file, `what` names the thing in it, and `raised_by` the key of a declaration that raises the limit.

    >>> check_limit(3, 2, "fields", what="demo_0")
    Traceback (most recent call last):
    schemas.errors.SourceError: demo_0: 3 fields; the limit is 2
    """
    if count > limit:
        hint = f"; if the file is sound, raise it with {raised_by}" if raised_by else ""
        place = f"{what}: " if what else ""
        raise SourceError(f"{place}{count} {unit}; the limit is {limit}{hint}", reason="too_large", file=where)
