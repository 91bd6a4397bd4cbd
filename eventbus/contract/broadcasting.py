"""Messages for whoever listens now."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol


class Broadcasting(Protocol):
    """Kept for nobody."""

    async def broadcast(self, channel: str, message: bytes) -> None:
        """Tell whoever listens now. Kept for nobody. Raises Unavailable."""

    def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Messages broadcast from now on, for as long as the iterator lives. What passes while the server is away is
        lost; `joined` is called whenever messages arrive from then on, in the beginning and behind every gap."""
