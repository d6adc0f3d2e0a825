"""Mixtures: their sources on disk, the lock, and what has drifted since."""
