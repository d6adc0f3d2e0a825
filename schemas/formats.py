"""Where recordings are and in which format: the table `source` of a declaration, one class for each format."""

from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from schemas.errors import SpecError, did_you_mean
from schemas.tables import Model

GROUP = "oxe_tools.readers"  # of entry points: a format's name -> the class that reads it

Images = Annotated[str, StringConstraints(pattern=r"^(png|jpeg ([1-9][0-9]?|100))$")]  # how pixels are encoded


class SourceSpec(Model):
    """What every format has; the other keys of a format say how its files are laid out."""

    format: str
    uri: str | None = None
    version: str | None = None
    mirror: str | None = None  # another place that holds the same

    def layout(self) -> dict[str, Any]:
        """Give what the format's reader must know besides the place."""
        return self.model_dump(exclude=set(SourceSpec.model_fields))


class RldsSource(SourceSpec):
    """RLDS as `tensorflow-datasets` writes it; it describes itself."""

    format: Literal["rlds"] = "rlds"


class Hdf5Source(SourceSpec):
    """HDF5 files with episodes as groups, or a file for each."""

    format: Literal["hdf5"]
    episodes: str | None = None  # a pattern of groups; "/": each file is one episode
    files: str | None = None  # a pattern of files below `uri`
    ignore: tuple[str, ...] = ()  # paths that are not read
    per_episode: tuple[str, ...] = ()  # paths without a step axis
    drop_last: tuple[str, ...] = ()  # paths that have one step more than the others
    images: Images = "png"  # for raw frames

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.episodes is None:
            raise ValueError("episodes: missing; such as 'data/demo_*', or '/' where each file is one episode")
        return self


class LerobotSource(SourceSpec):
    """A LeRobotDataset, v2.0 to v3.0; it describes itself, but not always rightly."""

    format: Literal["lerobot"]
    ignore: tuple[str, ...] = ()  # features that are not read
    data_path: str | None = None  # where info.json has it wrong
    video_path: str | None = None
    images: Images = "jpeg 95"  # for frames of videos


class PluginSource(SourceSpec):
    """A format that another package reads: an entry point of `GROUP` has the format's name."""

    options: dict[str, Any] = Field(default_factory=dict)  # what its reader takes besides the place

    def layout(self) -> dict[str, Any]:
        """Give `options`, as they are."""
        return self.options


OURS: dict[str, type[SourceSpec]] = {"rlds": RldsSource, "hdf5": Hdf5Source, "lerobot": LerobotSource}
PLUGIN = "plugin"


def _tag(data: Any) -> str:
    form = data.get("format", "rlds") if isinstance(data, dict) else getattr(data, "format", "")
    return form if form in OURS else PLUGIN


AnySource: TypeAlias = Annotated[
    Annotated[RldsSource, Tag("rlds")]
    | Annotated[Hdf5Source, Tag("hdf5")]
    | Annotated[LerobotSource, Tag("lerobot")]
    | Annotated[PluginSource, Tag(PLUGIN)],
    Discriminator(_tag),
]


def check_format(form: str, *, where: str) -> None:
    """Refuse a format that nobody reads: neither we nor an installed package."""
    if form not in OURS:
        known = {*OURS, *(entry.name for entry in entry_points(group=GROUP))}
        if form not in known:
            raise SpecError(f"{where}: source.format: unknown format '{form}'{did_you_mean(form, known)}")
