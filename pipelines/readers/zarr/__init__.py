"""Read Zarr sources: stores, codecs with size limits, and arrays, which are read block by block."""
