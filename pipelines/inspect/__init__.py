"""Inspect a source, check a declaration against it, and draft a declaration."""
