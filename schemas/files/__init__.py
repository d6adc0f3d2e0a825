"""Folders of files, on this machine or behind an fsspec URI."""
