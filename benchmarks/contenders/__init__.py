"""Who takes part: this project, the raw client, and how each is driven. The peers have benchmarks/peers."""
