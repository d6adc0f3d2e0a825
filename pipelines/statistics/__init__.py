"""Exact statistics of the numeric columns of published datasets."""
