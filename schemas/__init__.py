"""The vocabulary: what an episode, an action and a dataset mean, and how they lie on disk."""
