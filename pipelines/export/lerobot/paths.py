"""File paths of a LeRobotDataset. In v3.0 a file contains several episodes, in v2.1 one."""

from dataclasses import dataclass

CHUNK = 1000  # files in a folder (v3.0), episodes in a folder (v2.1)
INFO, STATS = "meta/info.json", "meta/stats.json"
TASKS = {"3.0": "meta/tasks.parquet", "2.1": "meta/tasks.jsonl"}
EPISODES = {"3.0": "meta/episodes/chunk-000/file-000.parquet", "2.1": "meta/episodes.jsonl"}
EPISODES_STATS = "meta/episodes_stats.jsonl"  # v2.1 only; v3.0 has them in its table of episodes
DATA_PATH = {
    "3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
}
VIDEO_PATH = {
    "3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    "2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
PATTERN = (
    r"meta/(info\.json|stats\.json|tasks\.(parquet|jsonl)|episodes\.jsonl|episodes_stats\.jsonl)|"
    r"meta/episodes/chunk-\d+/file-\d+\.parquet|data/chunk-\d+/(file-\d+|episode_\d+)\.parquet|"
    r"videos/[^/]+/[^/]+/(file-\d+|episode_\d+)\.mp4"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPaths:
    """File paths of one shard (v3.0) or one episode (v2.1)."""

    version: str
    shard: int
    episode: int  # used in v2.1

    @property
    def chunk(self) -> int:
        """Number of the folder."""
        return (self.shard if self.version == "3.0" else self.episode) // CHUNK

    @property
    def file(self) -> int:
        """Number of the file in its folder, in v3.0."""
        return self.shard % CHUNK

    def data(self) -> str:
        """Return the path of the Parquet file."""
        return self._path(DATA_PATH, "")

    def video(self, key: str) -> str:
        """Return the path of a camera's video."""
        return self._path(VIDEO_PATH, key)

    def _path(self, templates: dict[str, str], key: str) -> str:
        return templates[self.version].format(
            chunk_index=self.chunk,
            file_index=self.file,
            episode_chunk=self.chunk,
            episode_index=self.episode,
            video_key=key,
        )
