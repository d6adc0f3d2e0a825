"""Exact, mergeable statistics of vectors, and the normalizations that trained policies expect."""
