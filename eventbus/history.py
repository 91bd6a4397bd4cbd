"""`Selection` says which past events are meant, for `bus.events.replay` and the event store."""

from eventbus.contract.history import Selection

__all__ = ["Selection"]
