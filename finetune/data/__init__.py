"""From a locked mixture to batches; needs no torch, but for the tensors of `torch_loader` and `frames`."""
