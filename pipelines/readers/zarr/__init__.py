"""Zarr sources: stores, codecs with size limits, and arrays read in blocks."""
