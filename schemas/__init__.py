"""The vocabulary: episodes, actions and datasets, and how they are stored on disk."""
