"""The processes of a run: started, watched, told of signals, and started again."""
