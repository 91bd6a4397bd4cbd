"""What an author of handlers writes against, beside `Group` and `Context`: batches, middleware, listeners, verdicts,
transactions, and what all processes share."""
