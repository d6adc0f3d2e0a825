"""Draft a declaration from a source's names and numbers, with the evidence for each value."""
