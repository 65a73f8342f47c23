"""LoRA by peft on plain modules: what to adapt, how to inject it, and its files. Knows no family by name."""
