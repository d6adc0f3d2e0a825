"""Readers of source formats, listed in the table of `registry.py`."""
