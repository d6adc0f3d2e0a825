"""Convert a source and its declaration into a published dataset."""
