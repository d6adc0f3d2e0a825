"""Compare recorded commands with the motion that followed, to find out which conventions they have."""
