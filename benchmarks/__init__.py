"""Numbers, always as ratios to the raw client in the same run on the same server. Run: `make bench`."""
