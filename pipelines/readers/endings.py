"""The endings of the loose files that the format `folder` knows."""

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
TABLES = (".csv", ".jsonl", ".parquet")
TEXTS = (".json", ".txt")
EPISODE_NAMES = (".npz", ".npy", *TABLES)  # a file with one of them may be an episode by itself
READ = (*EPISODE_NAMES, *TEXTS, *IMAGES, *VIDEOS)
PICKLES = (".pkl", ".pickle")
PACKED = (".gz", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
