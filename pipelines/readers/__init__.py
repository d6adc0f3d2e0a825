"""One file per source format, found through the lazy table in `registry.py`."""
