"""Pure tensors: noise levels, objectives, losses. No models, no files."""
