"""Agents: who answers messages. Each belongs to one user."""
