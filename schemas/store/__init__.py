"""The published dataset: its layout, its columns, its index, and how it is opened."""
