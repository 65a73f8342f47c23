"""Composition roots: one file a command, one run(config) each."""
