"""Apache Beam: carries pure functions to where they run. Imported under this package alone."""
