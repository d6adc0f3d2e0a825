"""Read LeRobotDatasets: metadata, columns and cameras."""
