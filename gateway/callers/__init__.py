"""Who sends a request, and how many they may send: tokens, tickets, quotas."""
