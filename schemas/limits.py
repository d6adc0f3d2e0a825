"""The limits of what is read from foreign files, and the one error for what exceeds them.

A limit is compared with what a file says about itself (a shape, a header, a number of entries) before memory is taken
for it. Each is far above what recordings contain.
"""

from schemas.errors import SourceError

# Bytes
COLUMN_BYTES = 1 << 30  # one column of an episode, or one chunk
FRAMES_BYTES = 1 << 35  # raw frames of one camera in an episode, which are read in blocks
VALUE_BYTES = 16 << 20  # one per-episode value
DOCUMENT_BYTES = 256 << 20  # one JSON file
TOML_BYTES = 4 << 20  # one TOML file
EPISODE_BYTES = 1 << 32  # all numbers of an episode, or all arrays in one npz file
SPARSE_BYTES = 64 << 20  # a larger array must have stored data
SPARSE_RATIO = 2000  # declared bytes for each stored byte of such an array; no codec packs more tightly

# Counts
MAX_ROWS = 1_000_000  # rows in a table of episodes or tasks
MAX_STEPS = 10_000_000  # steps in an episode
MAX_FIELDS = 10_000  # fields in a source
MAX_LAYERS = 1000  # layers in a model
MAX_WIDTH = 1 << 20  # width of a model's layer, or size of its vocabulary
MAX_DEPTH = 100  # levels of nesting in JSON and TOML
MAX_DIGITS = 1000  # digits in a number in JSON and TOML
MAX_PIXELS = 1 << 26  # pixels in an image or video frame (8,192 x 8,192); a declaration raises it for images
DECODED_PIXELS = 1 << 27  # pixels in an image, whatever is declared


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


def above_limit(limit: int, unit: str, *, where: str = "", what: str = "", fix: str = "") -> SourceError:
    """Return the error for a count that is above its limit and was not counted to its end.

    >>> str(above_limit(2, "bytes", what="demo_0"))
    'demo_0: more than 2 bytes, the limit'
    """
    place = f"{what}: " if what else ""
    hint = f"; {fix}" if fix else ""
    return SourceError(f"{place}more than {limit} {unit}, the limit{hint}", reason="too_large", file=where)
