"""`recorder` makes the group that records all events, for a program that runs its workers itself."""

from eventbus.roles.history_group import recorder

__all__ = ["recorder"]
