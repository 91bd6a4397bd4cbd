"""What a program needs to ask for what has happened: `Selection`, for `bus.replay` and the event store."""

from eventbus.contract.history import Selection

__all__ = ["Selection"]
