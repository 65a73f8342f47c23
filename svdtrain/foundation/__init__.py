"""What every layer stands on: errors, files, hardware, random draws."""
