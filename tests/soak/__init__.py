"""Many trials of one thing, for as long as one likes; the normal suite runs a few of them."""
