"""Models in the layout of their published checkpoints."""
