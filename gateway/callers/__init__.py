"""Who asks, and how much they may: tokens, tickets, quotas."""
