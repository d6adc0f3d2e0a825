"""From the published dataset to a trained policy; torch is imported under this package alone."""
