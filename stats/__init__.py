"""Exact, mergeable statistics of vectors, and the normalization of actions for policies."""
