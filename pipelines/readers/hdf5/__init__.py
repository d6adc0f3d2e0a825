"""HDF5 sources: their files, groups and columns."""
