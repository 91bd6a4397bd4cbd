"""Answers on their way to the channel that the question came from."""
