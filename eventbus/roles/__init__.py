"""What a worker does beside its groups, one background role in each file."""
