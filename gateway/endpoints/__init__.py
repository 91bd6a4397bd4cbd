"""From a request to an endpoint: the table that routes are declared in, the checks before each, and its OpenAPI."""
