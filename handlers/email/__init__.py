"""Mail to leads and users: orders, letters, and the way to the server."""
