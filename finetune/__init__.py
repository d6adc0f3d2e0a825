"""Trains policies on published datasets. Only this package imports torch."""
