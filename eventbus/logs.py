"""`configure` sets up a program's log as the commands of the bus do."""

from eventbus.process.logs import configure

__all__ = ["configure"]
