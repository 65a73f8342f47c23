"""Videos from a loaded family: requests, comparisons, files."""
