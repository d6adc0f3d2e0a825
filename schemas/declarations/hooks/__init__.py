"""Functions that only one dataset needs; its declaration names them."""
