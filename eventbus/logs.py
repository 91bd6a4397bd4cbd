"""A program's log, as the commands have it: `configure`."""

from eventbus.process.logs import configure

__all__ = ["configure"]
