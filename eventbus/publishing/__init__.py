"""A publish's way from call to receipt: its slot, the breaker, and the spool where Redis is away."""
