"""A declaration proposed from the data: each claim with its confidence and evidence, and TODO where there is none."""
