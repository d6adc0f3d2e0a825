"""Batches from a locked mixture; only `torch_loader`, `frames` and `cameras` import torch."""
