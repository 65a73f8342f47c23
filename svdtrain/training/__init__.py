"""The fit: one generic Lightning step, its callbacks, its checkpoints. Knows no family by name."""
