"""The same step in less time and memory: stock modules wrapped from outside, each way of it named, and taken off again."""
