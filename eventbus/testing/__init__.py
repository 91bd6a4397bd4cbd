"""For the tests of those who use the bus."""

from eventbus.testing.bus import MemoryBus, StillRunning

__all__ = ["MemoryBus", "StillRunning"]
