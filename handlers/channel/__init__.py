"""Accounts at messengers, and what comes in through them."""
