"""Models whose checkpoints have the same layout as the published ones."""
