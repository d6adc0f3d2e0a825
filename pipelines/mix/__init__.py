"""Lock mixtures, report on them, and find what has changed since."""
