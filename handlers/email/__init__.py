"""Mail to leads and users."""
