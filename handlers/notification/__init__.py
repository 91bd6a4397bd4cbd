"""Notifications: kept for the user, and pushed to his open sockets."""
