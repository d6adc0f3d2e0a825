"""Views: the actions that a model trains on, computed from the stored columns."""
