"""Leads: from the form to the score."""
