"""What every request and answer has in common: bodies, problems, correlation, logs, metrics."""
