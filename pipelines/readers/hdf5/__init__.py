"""HDF5 in small pieces: files and groups, and the columns inside them."""
