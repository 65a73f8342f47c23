"""From a folder of videos to a dataset: cut, measured, sorted into buckets, packed."""
