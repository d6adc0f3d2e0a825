"""Declarations in TOML: where a dataset's values are and what they mean, with their expressions and ops."""
