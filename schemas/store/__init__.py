"""The published dataset on disk: its layout, columns and index, and how to read it."""
