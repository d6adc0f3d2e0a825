"""The parts of a training run. The training loop is in `finetune.training.train`."""
