"""LeRobotDataset in small pieces: its description, its table of episodes, its columns."""
