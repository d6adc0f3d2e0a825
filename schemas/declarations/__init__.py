"""What a dataset's numbers are and where they lie: declarations in TOML, their expressions and their ops."""
