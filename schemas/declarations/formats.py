"""The table `source` of a declaration, with the place and the format of the recordings. Each format has a class."""

from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from schemas.declarations.tables import Model
from schemas.errors import SpecError, did_you_mean

GROUP = "oxe_tools.readers"  # the entry point group: format name -> reader class

ImageEncoding = Annotated[str, StringConstraints(pattern=r"^(png|jpeg ([1-9][0-9]?|100))$")]  # the encoding of pixels
FrameLayout = Annotated[str, StringConstraints(pattern=r"^(hwc|chw)( rgba)?( 0\.\.(1|255))?$")]  # axes, alpha, range
SplitList = Annotated[
    str, StringConstraints(pattern=r"^([^/]+/)*[A-Za-z0-9_][A-Za-z0-9_.-]*$")
]  # the last part of the path names the split
EMPTY: Any = Field(default_factory=dict)


class SourceSpec(Model):
    """The keys that all formats have. The other keys of a format describe the layout of its files."""

    format: str
    uri: str | None = None
    version: str | None = None
    mirror: str | None = None  # another place with the same files

    def layout(self) -> dict[str, Any]:
        """Return the keys that only this format has, as JSON and without defaults."""
        return self.model_dump(mode="json", exclude=set(SourceSpec.model_fields), exclude_defaults=True)


class RldsSource(SourceSpec):
    """RLDS as `tensorflow-datasets` writes it. The files describe their own layout, so there are no further keys."""

    format: Literal["rlds"] = "rlds"


class TableSource(SourceSpec):
    """The keys of formats whose tables may have the rows of many episodes, one after another; at most one is set."""

    episode_ends: str | None = None  # path of the array with the end of each episode: the row after its last one
    episode_column: str | None = None  # path of the column with the id of each row's episode
    episode_flags: tuple[str, ...] | None = None  # columns that are true at an episode's last row; (): none does

    @model_validator(mode="after")
    def _one_key_divides_the_rows(self) -> Self:
        if len(keys := self.row_keys()) > 1:
            raise ValueError(f"{' and '.join(keys)}: only one of them can say where the episodes in a table end")
        return self

    def row_keys(self) -> dict[str, Any]:
        """Return the keys that divide the rows of a table into episodes: one, or none."""
        keys = {name: getattr(self, name) for name in TableSource.__annotations__}
        return {name: value for name, value in keys.items() if value is not None}

    @property
    def has_tables(self) -> bool:
        """Whether a key divides the rows of tables into episodes."""
        return any(value != () for value in self.row_keys().values())


class Hdf5Source(TableSource):
    """HDF5 files with one group or one file per episode, or with tables of many episodes."""

    format: Literal["hdf5"]
    episodes: str | None = None  # pattern of groups; "/" means that each file is one episode, or one table
    files: str | None = None  # pattern of files below `uri`
    ignore: tuple[str, ...] = ()  # paths that are not read
    per_episode: tuple[str, ...] = ()  # paths without a step axis
    drop_last: tuple[str, ...] = ()  # paths that have one step more than the others
    splits: tuple[SplitList, ...] = ()  # lists of episodes inside the files
    frames: dict[str, FrameLayout] = EMPTY  # layout of image datasets that are not plain uint8 [T, H, W, C]
    beside: dict[str, str] = EMPTY  # per-episode field -> pattern of a text file next to the HDF5 file
    in_json: tuple[str, ...] = ()  # paths inside JSON texts, read as per-episode fields
    videos: dict[str, str] = EMPTY  # camera -> pattern of a video next to the HDF5 file
    images: ImageEncoding | None = None  # encoding of raw frames (default "png") and videos (default "jpeg 95")

    @property
    def is_whole_file(self) -> bool:
        """Whether each file is one episode or one table, and not a group in it."""
        return not (self.episodes or "").strip("/")

    @model_validator(mode="after")
    def _episodes_are_given(self) -> Self:
        if self.episodes is None and not self.has_tables:
            raise ValueError(
                "episodes: is required, such as 'data/demo_*', or '/' if each file is one episode; or set "
                "episode_ends, episode_column or episode_flags if its rows are of many episodes"
            )
        names = [mask.rpartition("/")[2] for mask in self.splits]
        if names and (self.is_whole_file or len({*names, "rest"}) <= len(names)):
            raise ValueError("splits: needs lists of groups whose last names are unique and not 'rest'")
        if self.has_tables and (self.drop_last or self.videos):
            key = "drop_last" if self.drop_last else "videos"
            raise ValueError(f"{key}: cannot be used with {next(iter(self.row_keys()))}: its rows are of many episodes")
        return self


class LerobotSource(SourceSpec):
    """A LeRobotDataset, v2.0 to v3.0; its files describe their layout, sometimes wrongly."""

    format: Literal["lerobot"]
    ignore: tuple[str, ...] = ()  # features that are not read
    data_path: str | None = None  # overrides a wrong info.json
    video_path: str | None = None
    images: ImageEncoding = "jpeg 95"  # encoding of video frames


Stamp = Literal["log", "header"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RosbagSource(SourceSpec):
    """ROS bags and MCAP files: each bag is one episode, its topics resampled to one clock."""

    format: Literal["rosbag"]
    clock: str | Positive | None = None  # a topic, or a rate in Hz
    topics: dict[str, Literal["nearest", "hold", "linear", "slerp", "once"]] = Field(default_factory=dict)
    stamp: Stamp | dict[str, Stamp] = "log"  # which time of a message to use; topics without one use "log"
    max_skew: Positive | None = None  # seconds
    disorder: Literal["refuse", "sort"] = "refuse"  # what to do if times decrease or repeat
    split: dict[str, dict[str, str | tuple[str, ...]]] = EMPTY  # path of a text, or list of texts -> name -> its value
    only: tuple[str, ...] = ()  # topics or paths to read, and no others
    ignore: tuple[str, ...] = ()  # topics or paths that are not read
    ros: str | None = None  # ROS distribution that defines the messages, if the bags do not
    files: str | None = None  # pattern of bag files below `uri`
    images: ImageEncoding = "png"  # encoding of raw frames

    @model_validator(mode="after")
    def _clock_is_given(self) -> Self:
        if self.clock is None:
            raise ValueError("clock: is required: a topic such as '/joint_states', with a step per message, or Hz")
        return self


class ZarrSource(TableSource):
    """Zarr stores with the steps of all episodes one after another, or with a group per episode.

    Without a key that says where the episodes are, `episode_ends` is `meta/episode_ends`.
    """

    format: Literal["zarr"]
    steps: str = "data"  # path of the group whose arrays have a row per step
    episodes: str | None = None  # pattern of groups, in place of the two above; "/": each store is one episode
    files: str | None = None  # pattern of stores below `uri`
    ignore: tuple[str, ...] = ()  # paths that are not read
    per_episode: tuple[str, ...] = ()  # paths without a step axis, if each episode is a group
    frames: dict[str, FrameLayout] = EMPTY  # layout of image arrays that are not plain uint8 [N, H, W, C]
    fill: tuple[str, ...] = ()  # paths whose missing chunks are read as the fill value
    videos: dict[str, str] = EMPTY  # camera -> pattern of a video next to the store
    images: ImageEncoding | None = None  # encoding of raw frames (default "png") and videos (default "jpeg 95")

    @model_validator(mode="after")
    def _episodes_are_in_one_place(self) -> Self:
        if self.episodes is not None and (self.has_tables or "steps" in self.model_fields_set):
            raise ValueError("episodes: each episode is a group, so episode_ends and steps have no meaning")
        if self.episodes is None and self.per_episode:
            raise ValueError("per_episode: needs episodes; in a replay buffer, arrays outside of steps are per episode")
        return self

    @property
    def ends_at(self) -> str | None:
        """The path of the array with the ends of the episodes; None if another key says where they end."""
        if self.row_keys().keys() - {"episode_ends"}:
            return None
        return "meta/episode_ends" if self.episode_ends is None else self.episode_ends.strip("/")


class FolderSource(TableSource):
    """One folder or file per episode, or per table of many episodes."""

    format: Literal["folder"]
    episodes: str = Field(min_length=1)  # pattern of folders or files; "." is the folder itself
    ignore: tuple[str, ...] = ()  # paths that are not read
    per_episode: tuple[str, ...] = ()  # paths without a step axis
    drop_last: tuple[str, ...] = ()  # paths that have one step more than the others
    unnumbered: tuple[str, ...] = ()  # image folders where a gap in the numbers does not mean a missing frame
    ignore_lines: str | None = None  # pattern of lines in text files that are not read
    step_files: str | None = None  # pattern of files inside an episode that hold one step each
    step_ranges: str | None = None  # array beside them with the numbers of the first and last step of each episode
    header: bool | None = None  # whether the first line of a CSV file names the columns; None: yes, but no numbers
    images: ImageEncoding | None = None  # encoding of raw frames (default "png") and videos (default "jpeg 95")

    @model_validator(mode="after")
    def _ranges_need_step_files(self) -> Self:
        if self.step_ranges is not None and self.step_files is None:
            raise ValueError("step_ranges: needs source.step_files, the pattern of the files with one step each")
        return self


class PluginSource(SourceSpec):
    """A format that another package reads. It registers its reader as an entry point with the format's name."""

    options: dict[str, Any] = Field(default_factory=dict)  # further arguments of the reader


BUILT_IN: dict[str, type[SourceSpec]] = {
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
    return form if form in BUILT_IN else PLUGIN


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
    """Raise SpecError if neither oxe-tools nor an installed package reads the format."""
    if form not in BUILT_IN:
        known = {*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))}
        if form not in known:
            raise SpecError(f"{where}: source.format: unknown format '{form}'{did_you_mean(form, known)}")
