"""The group that records what passes, for a program that runs its workers itself: `recorder`."""

from eventbus.roles.history_group import recorder

__all__ = ["recorder"]
