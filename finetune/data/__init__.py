"""Reads batches from a locked mixture. Only `torch_loader`, `frames` and `cameras` import torch."""
