"""Read HDF5 sources: files, the groups in them that are episodes, and the columns of an episode."""
