"""Read sources, convert them to published datasets, and export, verify and mix datasets."""
