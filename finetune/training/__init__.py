"""What a training run consists of; `finetune.train` is the loop that runs it."""
