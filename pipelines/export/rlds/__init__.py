"""A published dataset as RLDS."""
