"""The tools of `python -m svdtrain adapter`, a file each."""
