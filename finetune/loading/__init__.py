"""How batches of a locked mixture are read; `finetune.data` is the loader made of it."""
