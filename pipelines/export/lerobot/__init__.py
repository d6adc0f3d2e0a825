"""Export of a dataset as a LeRobotDataset."""
