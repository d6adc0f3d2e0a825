"""What a single dataset needs and no other: one small function each, named in its declaration."""
