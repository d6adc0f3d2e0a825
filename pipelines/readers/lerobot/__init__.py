"""LeRobotDataset sources: their metadata, columns and cameras."""
