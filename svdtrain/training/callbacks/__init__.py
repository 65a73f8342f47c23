"""What happens beside the step: average, look, save, tell."""
