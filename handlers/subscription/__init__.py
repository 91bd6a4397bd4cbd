"""Browsers that users get pushes in."""
