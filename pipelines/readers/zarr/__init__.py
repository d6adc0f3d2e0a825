"""Zarr in small pieces: stores, codecs that inflate no more than a chunk, and arrays read in blocks."""
