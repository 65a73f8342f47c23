"""The table of faults: what breaks, and what svdtrain answers."""
