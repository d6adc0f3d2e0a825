"""`oxe demo`: record one motion as three labs would, and convert it to one schema."""
