"""What a user would pick instead: a driver for each, in an environment of its own with pinned versions."""
