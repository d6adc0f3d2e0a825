"""How an OpenVLA-OFT model predicts chunks of actions: the content of `oft.json`, which our checkpoints have."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

from schemas.errors import CheckpointError, did_you_mean
from stats.norm import Method

Head: TypeAlias = Literal["l1", "diffusion", "discrete"]
BOUNDS = ("bounds", "bounds_q99")  # the normalizations that OFT knows
MOST = 10_000  # limit on the numbers of a chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class OFTSettings:
    """How a model predicts chunks of actions.

    An observation has the images of all `cameras` for each of `history` steps, the oldest step first. `cameras` is
    empty if the number of images is not known, because the original layout does not record it. FiLM is computed from
    the mean of the prompt's embeddings; `film_pads` decides whether this includes the padding of a batch, as in the
    original code.
    """

    head: Head
    chunk: int  # actions, K
    method: Method  # how actions and proprios are normalized
    actions: tuple[str, ...]  # names of the A numbers of an action
    proprio: tuple[str, ...] = ()  # names of the P numbers of a proprio; empty: the model has no proprio
    film: bool = False
    film_pads: bool = False
    cameras: tuple[str, ...] = ()
    history: int = 1

    def __post_init__(self) -> None:
        """Raise CheckpointError if a value is not valid."""
        if self.head not in get_args(Head):
            raise CheckpointError(f"head: unknown value '{self.head}'{did_you_mean(self.head, get_args(Head))}")
        if self.method not in BOUNDS:
            raise CheckpointError(f"method: expected {' or '.join(BOUNDS)}, got '{self.method}'")
        if min(self.chunk, self.history, len(self.actions)) < 1:
            raise CheckpointError(f"chunk {self.chunk}, history {self.history}: expected at least 1 of each")
        if self.chunk * len(self.actions) > MOST:
            raise CheckpointError(f"chunk {self.chunk}: more than {MOST:,} numbers in a chunk")

    @property
    def images(self) -> int | None:
        """The number of images of an observation; None if it is not known."""
        return len(self.cameras) * self.history or None

    @property
    def size(self) -> int:
        """The numbers of a chunk, K * A."""
        return self.chunk * len(self.actions)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `oft.json`."""
        return asdict(self)

    @classmethod
    def of(cls, content: Any, *, where: str) -> Self:
        """Parse the content of `oft.json`. Raises CheckpointError if it is not valid."""
        try:
            names = {key: tuple(map(str, content[key])) for key in ("actions", "proprio", "cameras")}
            return cls(**{**content, **names})
        except (AttributeError, KeyError, TypeError, CheckpointError) as error:
            raise CheckpointError(f"{where}: not valid ({error})") from error
