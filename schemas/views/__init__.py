"""Views: what a model trains on, computed from what is stored."""
