"""Whether an adapter works: losses that can be compared, measures of videos, and what they say in words."""
