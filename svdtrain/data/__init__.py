"""Clips: from tar shards to batches of pixels, in one order that depends on the seed alone."""
