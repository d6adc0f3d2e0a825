"""Export of a dataset as RLDS."""
