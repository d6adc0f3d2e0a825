"""Folders of files, on this machine or behind any fsspec URI."""
