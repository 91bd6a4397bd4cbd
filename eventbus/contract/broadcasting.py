"""Messages for whoever listens now."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol


class Broadcasting(Protocol):
    """Messages are kept for nobody: whoever does not listen at that moment misses them."""

    async def broadcast(self, channel: str, message: bytes) -> None:
        """Tell whoever listens now. Kept for nobody. Raises Unavailable."""

    def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Messages broadcast from now on, for as long as the iterator lives. What passes while the server is away is
        lost. `joined` is called each time that listening begins to work: at first, and after every gap."""
