"""A trained policy: how it is loaded, acts, is judged and is merged."""
