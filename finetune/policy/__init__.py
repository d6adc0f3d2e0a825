"""Loads, runs, evaluates and merges trained policies."""
