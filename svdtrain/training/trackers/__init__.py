"""Programs that show runs while they go on: W&B, TensorBoard and others, told on a thread of their own."""
