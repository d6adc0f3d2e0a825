"""Where recordings are and in which format: the table `source` of a declaration, one class for each format."""

from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from schemas.declarations.tables import Model
from schemas.errors import SpecError, did_you_mean

GROUP = "oxe_tools.readers"  # of entry points: a format's name -> the class that reads it

Images = Annotated[str, StringConstraints(pattern=r"^(png|jpeg ([1-9][0-9]?|100))$")]  # how pixels are encoded
Frames = Annotated[str, StringConstraints(pattern=r"^(hwc|chw)( rgba)?( 0\.\.(1|255))?$")]  # axes, alpha, range
Mask = Annotated[str, StringConstraints(pattern=r"^([^/]+/)*[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # its last word is a split
EMPTY: Any = Field(default_factory=dict)


class SourceSpec(Model):
    """What every format has; the other keys of a format say how its files are laid out."""

    format: str
    uri: str | None = None
    version: str | None = None
    mirror: str | None = None  # another place that holds the same

    def layout(self) -> dict[str, Any]:
        """Return the format's own keys, as JSON has them and without those that are left at their defaults."""
        return self.model_dump(mode="json", exclude=set(SourceSpec.model_fields), exclude_defaults=True)


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
    splits: tuple[Mask, ...] = ()  # lists of episodes inside the files
    frames: dict[str, Frames] = EMPTY  # how datasets hold images, where that is not plain uint8 [T, H, W, C]
    beside: dict[str, str] = EMPTY  # a per-episode field -> a pattern of a text file beside the HDF5 file
    in_json: tuple[str, ...] = ()  # paths into texts of JSON, which become per-episode fields
    videos: dict[str, str] = EMPTY  # a camera -> a pattern of a video beside the HDF5 file
    images: Images | None = None  # for raw frames ("png" unless said) and videos ("jpeg 95")

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.episodes is None:
            raise ValueError("episodes: missing; such as 'data/demo_*', or '/' where each file is one episode")
        names = [mask.rpartition("/")[2] for mask in self.splits]
        if names and (not self.episodes.strip("/") or len({*names, "rest"}) <= len(names)):
            raise ValueError("splits: lists of groups with different names at their ends, none of them 'rest'")
        return self


class LerobotSource(SourceSpec):
    """A LeRobotDataset, v2.0 to v3.0; it describes itself, but not always rightly."""

    format: Literal["lerobot"]
    ignore: tuple[str, ...] = ()  # features that are not read
    data_path: str | None = None  # where info.json has it wrong
    video_path: str | None = None
    images: Images = "jpeg 95"  # for frames of videos


Stamp = Literal["log", "header"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RosbagSource(SourceSpec):
    """Bags of ROS messages and MCAP files: one bag is one episode, its topics resampled to one clock."""

    format: Literal["rosbag"]
    clock: str | Positive | None = None  # a topic, or ticks in a second
    topics: dict[str, Literal["nearest", "hold", "linear", "slerp", "once"]] = Field(default_factory=dict)
    stamp: Stamp | dict[str, Stamp] = "log"  # which time a message has; of topics not named, that of its logging
    max_skew: Positive | None = None  # seconds
    disorder: Literal["refuse", "sort"] = "refuse"  # times that go back or repeat
    only: tuple[str, ...] = ()  # topics or paths: nothing else is read
    ignore: tuple[str, ...] = ()  # topics or paths that are not read
    ros: str | None = None  # a distribution, where the bags do not define their messages
    files: str | None = None  # a pattern of files below `uri`, each of which is a bag
    images: Images = "png"  # for raw frames

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.clock is None:
            raise ValueError("clock: missing; a topic such as '/joint_states', each message of which is a step, or Hz")
        return self


class ZarrSource(SourceSpec):
    """Zarr stores with the steps of all episodes one after the other, and where each episode ends."""

    format: Literal["zarr"]
    episode_ends: str = "meta/episode_ends"  # an array
    steps: str = "data"  # the group whose arrays have a row for each step
    files: str | None = None  # a pattern of stores below `uri`
    ignore: tuple[str, ...] = ()  # paths that are not read
    frames: dict[str, Frames] = EMPTY  # how arrays hold images, where that is not plain uint8 [N, H, W, C]
    fill: tuple[str, ...] = ()  # paths whose chunks may be missing: they hold the fill value
    images: Images = "png"


class FolderSource(SourceSpec):
    """A folder, or a file, for each episode."""

    format: Literal["folder"]
    episodes: str = Field(min_length=1)  # a pattern of folders or files
    ignore: tuple[str, ...] = ()  # paths that are not read
    per_episode: tuple[str, ...] = ()  # paths without a step axis
    drop_last: tuple[str, ...] = ()  # paths that have one step more than the others
    unnumbered: tuple[str, ...] = ()  # image folders in whose names a gap between numbers is no lost frame
    ignore_lines: str | None = None  # a pattern of lines of text files
    images: Images | None = None  # for raw frames ("png" unless said) and videos ("jpeg 95")


class PluginSource(SourceSpec):
    """A format that another package reads: an entry point of `GROUP` has the format's name."""

    options: dict[str, Any] = Field(default_factory=dict)  # what its reader takes besides the place


OURS: dict[str, type[SourceSpec]] = {
    "rlds": RldsSource,
    "hdf5": Hdf5Source,
    "lerobot": LerobotSource,
    "zarr": ZarrSource,
    "rosbag": RosbagSource,
    "folder": FolderSource,
}
PLUGIN = "plugin"


def _tag(data: Any) -> str:
    form = data.get("format", "rlds") if isinstance(data, dict) else getattr(data, "format", "")
    return form if form in OURS else PLUGIN


AnySource: TypeAlias = Annotated[
    Annotated[RldsSource, Tag("rlds")]
    | Annotated[Hdf5Source, Tag("hdf5")]
    | Annotated[LerobotSource, Tag("lerobot")]
    | Annotated[ZarrSource, Tag("zarr")]
    | Annotated[FolderSource, Tag("folder")]
    | Annotated[RosbagSource, Tag("rosbag")]
    | Annotated[PluginSource, Tag(PLUGIN)],
    Discriminator(_tag),
]


def check_format(form: str, *, where: str) -> None:
    """Refuse a format that nobody reads: neither we nor an installed package."""
    if form not in OURS:
        known = {*OURS, *(entry.name for entry in entry_points(group=GROUP))}
        if form not in known:
            raise SpecError(f"{where}: source.format: unknown format '{form}'{did_you_mean(form, known)}")
