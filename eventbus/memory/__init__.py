"""The transport inside one process: the rules of Redis, for tests and first steps. Nothing survives the process."""

from eventbus.memory.transport import MemoryTransport

__all__ = ["MemoryTransport"]
