"""A published dataset as a LeRobotDataset."""
