"""What a training run consists of; `finetune.training.train` is the loop that runs it."""
