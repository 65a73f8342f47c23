"""A run as data: the schema, the composition by Hydra, and the checks. Nothing here imports torch."""
