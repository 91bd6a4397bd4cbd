"""WhatsApp accounts: what was said before they were connected here."""
