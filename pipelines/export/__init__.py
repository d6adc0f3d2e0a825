"""Datasets in the formats of others, with what reads them back and what proves that it is the same."""
