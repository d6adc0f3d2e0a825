"""Exports of a dataset to other formats, and their verification."""
