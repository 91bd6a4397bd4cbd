"""Which groups run in which process."""
